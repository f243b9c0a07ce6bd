"""Tables written in random dialects: the reader gives exactly the rows, or refuses in one line that names a line."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tslrec.data.ingest import read_raw
from tslrec.settings.data import DataConfig
from tslrec.system.errors import UserError

EXAMPLES = 400
SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe", "::": "::", " ": "space", "¦": "¦"}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
NAMES = ("user", "item", "note", "timestamp")
Row = tuple[str, str, str, str]

ids = st.text("abzAZ019äж_-.#\xa0\u2028", min_size=1, max_size=6).filter(str.strip)
"""Ids with letters beyond ASCII and with signs that Python, but no editor, takes for a line end."""
notes = st.text("ab\"'12 ,;|\t:é\n", max_size=12)
times = st.integers(-(2**62), 2**62).map(str)


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    separator: str
    quotes: str
    end: str
    mark: bytes
    packing: str
    header: bool
    order: tuple[int, ...]
    blanks: frozenset[int]
    last_end: bool


dialects = st.builds(
    Dialect,
    separator=st.sampled_from(sorted(SEPARATORS)),
    quotes=st.sampled_from(["all", "needed", "never"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe"]),
    packing=st.sampled_from(sorted(PACKINGS)),
    header=st.booleans(),
    order=st.permutations(range(4)).map(tuple),
    blanks=st.frozensets(st.integers(0, 8), max_size=3),
    last_end=st.booleans(),
)


def field(text: str, dialect: Dialect) -> str:
    """A field as the dialect writes it."""
    needed = any(sign in text for sign in (dialect.separator, '"', "\n"))
    if dialect.quotes == "all" or (dialect.quotes == "needed" and needed):
        doubled = text.replace('"', '""')
        return f'"{doubled}"'
    return text


def written(rows: list[Row], dialect: Dialect, notes_are_strays: bool) -> bytes:
    """The table's bytes. Notes that are strays are written as they are, whatever the dialect says about quotes."""
    lines = []
    for number, row in enumerate([NAMES, *rows] if dialect.header else rows):
        if number in dialect.blanks:
            lines.append("")
        fields = [
            text if name == "note" and notes_are_strays else field(text, dialect)
            for name, text in zip(NAMES, row, strict=True)
        ]
        lines.append(dialect.separator.join(fields[index] for index in dialect.order))
    text = dialect.end.join(lines) + (dialect.end if dialect.last_end else "")
    encoded = text.encode("utf-16-le") if dialect.mark == b"\xff\xfe" else text.encode()
    return PACKINGS[dialect.packing](dialect.mark + encoded)


def read(folder: str, content: bytes, dialect: Dialect, **options: Any) -> list[tuple[str, str, int]]:
    """The rows as the reader gives them."""
    path = Path(folder) / f"t.csv{dialect.packing}"
    path.write_bytes(content)
    columns = {} if dialect.header else {"columns": [NAMES[index] for index in dialect.order]}
    reader = {
        "_target_": "tslrec.data.formats.tables.read_csv",
        "user_column": "user",
        "item_column": "item",
        "time_column": "timestamp",
        "separator": SEPARATORS[dialect.separator],
        **columns,
        **options,
    }
    data = DataConfig(name="own", title="Own", reader=reader, path=str(path))
    rows = read_raw(data, path.parent)[0].rows
    return rows.select(name for name in ("user", "item", "timestamp") if name in rows.columns).rows()


def expected(rows: list[Row]) -> list[tuple[str, str, int]]:
    return [(user, item, int(time)) for user, item, _, time in rows]


def assert_one_line(error: UserError, folder: str, *, line: bool = True) -> None:
    message = str(error).replace(folder, "")
    assert "\n" not in message
    assert len(message) <= 300
    assert not line or ", line " in message, message


plain_rows = st.lists(st.tuples(ids, ids, st.text("abé'", max_size=5), times), min_size=1, max_size=8)
noted_rows = st.lists(st.tuples(ids, ids, notes, times), min_size=1, max_size=8)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=plain_rows, dialect=dialects)
def test_a_table_without_stray_signs_is_read_exactly(rows: list[Row], dialect: Dialect) -> None:
    with tempfile.TemporaryDirectory() as folder:
        quote = {"quote": "double"} if dialect.quotes == "all" and len(dialect.separator.encode()) == 1 else {}
        if dialect.quotes != "all" or quote or dialect.separator == "::":
            assert read(folder, written(rows, dialect, False), dialect, **quote) == expected(rows)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=noted_rows, dialect=dialects)
def test_quoted_fields_with_separators_and_line_ends_are_read_or_named(rows: list[Row], dialect: Dialect) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = read(folder, written(rows, dialect, False), dialect)
        except UserError as error:
            assert_one_line(error, folder)
            return
        if dialect.quotes != "never":
            assert found == expected(rows)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=st.lists(st.tuples(ids, ids, st.text('a" x', max_size=6), times), min_size=1, max_size=8), dialect=dialects)
@example(
    rows=[("a", "b", '"x', "1"), ("a", "b", '5"', "2")],
    dialect=Dialect(",", "never", "\n", b"", "", True, (0, 1, 2, 3), frozenset(), True),
)
def test_stray_quotes_in_a_column_that_is_not_read_lose_no_row(rows: list[Row], dialect: Dialect) -> None:
    if dialect.separator == " ":
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = read(folder, written(rows, dialect, True), dialect)
        except UserError as error:
            assert_one_line(error, folder)
            return
        assert found == expected(rows)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.binary(max_size=60) | st.text('ab",\n\r\t:1 é', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused_in_one_line(content: bytes) -> None:
    """Where they are read, every line with text is a row, or part of a quoted field."""
    plain = Dialect(",", "needed", "\n", b"", "", False, (0, 1, 3), frozenset(), True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = read(folder, content, plain, time_column=None, columns=["user", "item"])
        except UserError as error:
            assert_one_line(error, folder, line=False)
            return
        text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        rows = [row for row in csv.reader(io.StringIO(text, newline="\n"), strict=True) if any(map(str.strip, row))]
        assert len(found) == len(rows)
