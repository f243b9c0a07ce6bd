"""Histories whose columns other libraries fill otherwise than polars: mixed ids, arrays, missing values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from support.table_recommender import make_recommender
from tslrec.serving.streaming.history_files import open_histories
from tslrec.serving.streaming.id_files import read_users
from tslrec.system.errors import UserError

PLAIN = {"a": ["i1", "i7"], "b": ["i2", "i9"]}
ARRAYS = pl.DataFrame({"user": list(PLAIN), "items": pl.Series(list(PLAIN.values()), dtype=pl.Array(pl.String, 2))})
FORMS = {
    "polars arrays": ARRAYS,
    "pandas lists": pd.DataFrame({"user": list(PLAIN), "items": list(PLAIN.values())}),
    "pandas arrays": pd.DataFrame({"user": list(PLAIN), "items": [np.array(each) for each in PLAIN.values()]}),
    "pandas rows": pd.DataFrame({"user": list("aabb"), "item": ["i1", "i7", "i2", "i9"], "more": [1, "x", None, 2]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(form: str) -> None:
    recommender = make_recommender()
    assert recommender.recommend(FORMS[form], 5).equals(recommender.recommend(PLAIN, 5))


def test_a_file_with_arrays_gives_the_same(tmp_path: Path) -> None:
    ARRAYS.write_parquet(tmp_path / "arrays.parquet")
    recommender = make_recommender()
    histories = open_histories(tmp_path / "arrays.parquet").read(slice(0, 2), recommender.catalogue, "refuse")
    assert recommender.recommend(histories, 5).equals(recommender.recommend(PLAIN, 5))


def test_text_and_integers_may_stand_together() -> None:
    recommender = make_recommender()
    wanted = recommender.recommend({"7": ["i1"], "b": ["i2"]}, 3)
    assert recommender.recommend({7: ["i1"], "b": ["i2"]}, 3).equals(wanted)
    assert recommender.recommend(pd.DataFrame({"user": [7, "b"], "item": ["i1", "i2"]}), 3).equals(wanted)
    # 3 is an id that this catalogue lacks.
    mixed = pd.DataFrame({"user": ["7", "7", "b"], "item": ["i1", 3, "i2"]})
    assert recommender.recommend(mixed, 3).equals(wanted)


def test_a_missing_list_is_an_empty_one() -> None:
    recommender = make_recommender()
    wanted = recommender.recommend({"a": ["i1"], "b": []}, 3)
    assert recommender.recommend(pd.DataFrame({"user": ["a", "b"], "items": [["i1"], None]}), 3).equals(wanted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (pd.DataFrame({"user": [1, None], "item": ["i1", "i2"]}), "a user is null"),
        ({None: ["i1"]}, "a user is null"),
        (pd.DataFrame({"user": [1, 2], "item": ["i1", None]}), "an id is null"),
        (pd.DataFrame({"user": [1, 2], "items": ["i1 i2", "i3"]}), "'i1 i2' is no list of raw ids"),
        (pd.DataFrame({"user": [1], "thing": ["i1"]}), "has the columns user, thing; name them"),
    ],
)
def test_what_names_no_user_or_item_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_recommender().recommend(given)


def test_half_a_character_is_no_id(tmp_path: Path) -> None:
    (tmp_path / "half.jsonl").write_text('{"user": "\\ud800", "items": ["i1"]}\n')
    with pytest.raises(UserError, match=r"half\.jsonl: line 1: user must be an id"):
        open_histories(tmp_path / "half.jsonl")


def test_a_column_of_lists_names_no_users(tmp_path: Path) -> None:
    pl.DataFrame({"user": [["a"], ["b"]]}).write_parquet(tmp_path / "users.parquet")
    with pytest.raises(UserError, match=r"users\.parquet: the column user holds List\(String\); give one id a row"):
        read_users(tmp_path / "users.parquet")
