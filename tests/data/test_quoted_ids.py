"""Quoted fields of interactions: ids that hold the separator, and fields of any length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tslrec.data.ingest import read_raw
from tslrec.settings.data import DataConfig
from tslrec.system.errors import UserError

LONG = "x" * 200_000
"""Longer than the 131,072 signs that Python's csv module allows by itself."""


def rows_of(folder: Path, text: str, **options: Any) -> list[tuple[str, str]]:
    path = folder / "a.csv"
    path.write_text(text)
    reader = {
        "_target_": "tslrec.data.formats.tables.read_csv",
        "user_column": "user",
        "item_column": "item",
        **options,
    }
    raw, _ = read_raw(DataConfig(name="own", reader=reader, path=str(path)), folder)
    return raw.rows.select("user", "item").rows()


def test_an_id_keeps_a_separator_of_several_signs_within_quotes(tmp_path: Path) -> None:
    text = 'user::item\na::"x::y"\n"b::c"::5" nail\n'
    assert rows_of(tmp_path, text, separator="::", quote="double") == [("a", "x::y"), ("b::c", '5" nail')]


def test_so_does_the_name_of_a_column_and_a_message(tmp_path: Path) -> None:
    named = {"separator": "::", "quote": "double", "item_column": "the::item"}
    assert rows_of(tmp_path, 'user::"the::item"\na::x\n', **named) == [("a", "x")]
    with pytest.raises(UserError, match=r"line 2: field 2 goes on to the next line \(x::\\ny\), and is no id"):
        rows_of(tmp_path, 'user::"the::item"\na::"x::\ny"\n', **named)


@pytest.mark.parametrize(
    "text",
    [f'user,item,note\na,x,"{LONG}"\n', f'user,item,note\na,x,{LONG}"\n', f'user,item,"{LONG}"\na,x,1\n'],
    ids=["first row", "stray quote", "header"],
)
def test_a_field_may_be_of_any_length(text: str, tmp_path: Path) -> None:
    assert rows_of(tmp_path, text) == [("a", "x")]
