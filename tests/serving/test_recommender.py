"""What a recommender answers equals a brute-force ranking, whatever the model, the histories and the filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.recommenders import BACKBONES, catalogue, random_engine, random_recommender
from tslrec.serving.engine import Batch
from tslrec.serving.histories import encode
from tslrec.serving.recommender import Recommender
from tslrec.system.errors import UserError

RECOMMENDERS = {name: random_recommender(name, seed=3) for name in BACKBONES}
ITEMS = [f"a{item}" for item in range(1, 31)]


def scores_of(recommender: Recommender, history: Sequence[str]) -> dict[str, float]:
    """The score of every item for one history, computed without batches."""
    engine = recommender.engine
    items = np.array([[ITEMS.index(each) + 1 for each in history[-engine.max_len :]]])
    nothing = np.zeros(0, dtype=np.int64)
    user = engine.user_vectors(Batch(items, np.array([items.shape[1]]), nothing, nothing))
    return dict(zip(ITEMS, (user @ engine.item_vectors().T)[0, 1:].tolist(), strict=True))


def assert_is_ranking(rows: pl.DataFrame, scores: dict[str, float], allowed: set[str], k: int) -> None:
    """The rows are the K best of the allowed items; items whose scores differ by rounding alone may change places."""
    assert rows["rank"].to_list() == list(range(1, min(k, len(allowed)) + 1))
    listed = rows["item"].to_list()
    assert len(set(listed)) == len(listed)
    assert set(listed) <= allowed
    for score, item in zip(rows["score"], listed, strict=True):
        assert score == pytest.approx(scores[item], rel=1e-4, abs=1e-5)
    best = sorted((scores[item] for item in allowed), reverse=True)[: len(listed)]
    np.testing.assert_allclose([scores[item] for item in listed], best, rtol=1e-4, atol=1e-5)


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(list(BACKBONES)),
    histories=st.lists(st.lists(st.sampled_from(ITEMS), min_size=1, max_size=9), min_size=1, max_size=5),
    k=st.integers(1, 30),
    filter_seen=st.booleans(),
    only=st.none() | st.lists(st.sampled_from(ITEMS), min_size=1, max_size=20),
    without=st.none() | st.lists(st.sampled_from(ITEMS), max_size=10),
)
def test_equals_a_brute_force_ranking(
    name: str,
    histories: list[list[str]],
    k: int,
    filter_seen: bool,
    only: list[str] | None,
    without: list[str] | None,
) -> None:
    recommender = RECOMMENDERS[name]
    kept = set(ITEMS if only is None else only) - set(without or [])
    if not kept:
        with pytest.raises(UserError, match="leave no item"):
            recommender.recommend(histories, k, only=only, without=without)
        return
    found = recommender.recommend(histories, k, filter_seen=filter_seen, only=only, without=without, batch_size=2)
    assert found.columns == ["user", "item", "score", "rank"]
    assert found["user"].is_sorted()
    for user, history in enumerate(histories):
        allowed = kept - set(history) if filter_seen else kept
        assert_is_ranking(found.filter(pl.col("user") == user), scores_of(recommender, history), allowed, k)


def test_of_equal_scores_the_lower_item_is_first() -> None:
    engine = random_engine(num_items=300)
    engine.output_IE = torch.ones_like(engine.output_IE)
    recommender = Recommender(engine, catalogue(300), {})
    assert recommender.recommend([["a2"]], 3)["item"].to_list() == ["a1", "a3", "a4"]
    assert recommender.recommend([["a2"]], 3, only=["a9", "a7", "a8", "a6"])["item"].to_list() == ["a6", "a7", "a8"]


def test_every_form_of_histories_gives_the_same(tmp_path: Path) -> None:
    recommender = RECOMMENDERS["sasrec"]
    lists = [["a1", "a2"], ["a7"], ["a3", "a9", "a4"]]
    users = ["x", "y", "z"]
    expected = recommender.recommend(lists, 4).drop("user")
    frame = pl.DataFrame({"user": users, "items": lists})
    rows = pl.DataFrame(
        [{"user": user, "item": item} for user, items in zip(users, lists, strict=True) for item in items]
    )
    frame.write_parquet(tmp_path / "lists.parquet")
    rows.write_parquet(tmp_path / "rows.parquet")
    forms: list[Any] = [
        dict(zip(users, lists, strict=True)),
        frame,
        rows,
        pd.DataFrame({"user": users, "items": lists}),
        pd.DataFrame(rows.to_dict(as_series=False)),
        tmp_path / "lists.parquet",
        str(tmp_path / "rows.parquet"),
    ]
    for form in forms:
        found = recommender.recommend(form, 4)
        assert found.drop("user").equals(expected)
        assert found["user"].unique(maintain_order=True).to_list() == users


def test_integers_stand_for_their_digits() -> None:
    engine = random_engine(num_items=3)
    items = pl.DataFrame(
        {"raw_id": ["", "7", "8", "9"], "title": pl.Series([None] * 4, dtype=pl.String), "count": [0, 1, 1, 1]}
    )
    from tslrec.serving.catalogue import Catalogue

    recommender = Recommender(engine, Catalogue(items), {})
    assert recommender.recommend([[7]], 2).equals(recommender.recommend([["7"]], 2))
    with pytest.raises(UserError, match=r"7\.0 is no raw id"):
        recommender.recommend([[7.0]], 2)


def test_cold_users_get_popular_items_or_nothing_or_are_refused() -> None:
    recommender = RECOMMENDERS["gru4rec"]
    popular = recommender.recommend([["nobody knows"], ["a5"]], 3)
    assert popular.filter(pl.col("user") == 0).to_dict(as_series=False) == {
        "user": [0, 0, 0],
        "item": ["a1", "a2", "a3"],
        "score": [None, None, None],
        "rank": [1, 2, 3],
    }
    assert popular.filter(pl.col("user") == 1)["score"].null_count() == 0
    assert recommender.recommend([[], ["a5"]], 3, cold="skip")["user"].unique().to_list() == [1]
    assert recommender.recommend([[]], 2, only=["a9", "a8"])["item"].to_list() == ["a8", "a9"]
    with pytest.raises(UserError, match="user 0 has no item that the catalogue knows"):
        recommender.recommend([[]], cold="refuse")


def test_unknown_items_are_dropped_or_refused() -> None:
    recommender = RECOMMENDERS["fmlp"]
    assert recommender.recommend([["a1", "new", "a2"]]).equals(recommender.recommend([["a1", "a2"]]))
    with pytest.raises(UserError, match="user 1 has item 'new', which the catalogue lacks"):
        recommender.recommend([["a1"], ["a2", "new"]], unknown_items="refuse")
    many = [["a1"] * 6_000, [*["a2"] * 5_000, "new"]]
    assert encode(many, recommender.catalogue, unknown_items="drop").lengths.tolist() == [6_000, 5_000]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k=0: must be an integer from 1 to 30"),
        ({"k": 31}, "k=31"),
        ({"k": 2.5}, r"k=2\.5"),
        ({"only": ["zz"]}, "only: the catalogue has no item 'zz'"),
        ({"without": [None]}, "without: None is no raw id"),
        ({"cold": "warm"}, "cold=warm"),
        ({"unknown_items": "keep"}, "unknown_items=keep"),
        ({"histories": "a1 a2"}, "a1 a2"),
        ({"histories": ["a1"]}, r"histories\[0\]: 'a1' is no list"),
        ({"histories": 7}, "histories: int"),
        ({"histories": pl.DataFrame({"person": [1]})}, "has the columns person"),
        ({"histories": pl.DataFrame({"user": [1], "items": ["a1"]})}, "not lists of raw ids"),
        ({"histories": pl.DataFrame({"user": [1], "item": [0.5]})}, "holds Float64"),
        ({"histories": pl.DataFrame({"user": [None], "item": ["a1"]})}, "a user is null"),
        ({"histories": pl.DataFrame({"user": [1], "item": pl.Series([None], dtype=pl.String)})}, "an id is null"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        RECOMMENDERS["caser"].recommend(arguments.pop("histories", [["a1"]]), **arguments)
    assert "\n" not in str(refused.value)


def test_no_users_give_no_rows() -> None:
    found = RECOMMENDERS["caser"].recommend([])
    assert found.columns == ["user", "item", "score", "rank"]
    assert len(found) == 0


def test_scores_and_vectors_agree_with_the_lists() -> None:
    recommender = RECOMMENDERS["caser of its authors"]
    histories = [["a1", "a2", "a3"], ["a9"]]
    lists = recommender.recommend(histories, 30, filter_seen=False)
    scores = recommender.score(histories, ITEMS)
    joined = lists.join(scores, on=["user", "item"], how="inner", suffix="_given")
    assert len(joined) == 60
    np.testing.assert_allclose(joined["score"], joined["score_given"], rtol=1e-4, atol=1e-5)
    products = recommender.user_vectors(histories) @ recommender.item_vectors().T
    np.testing.assert_allclose(products[:, 1:].ravel(), scores["score"], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="user 1 has no item"):
        recommender.score([["a1"], []], ["a2"])


def test_similar_items_have_the_highest_cosines() -> None:
    recommender = RECOMMENDERS["sasrec"]
    vectors = recommender.item_vectors()[1:]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = sorted(((float(unit[4] @ unit[item]), ITEMS[item]) for item in range(30) if item != 4), reverse=True)[:3]
    found = recommender.similar(["a5", "a6"], 3)
    assert found["item"].to_list() == ["a5"] * 3 + ["a6"] * 3
    assert found["similar"].to_list()[:3] == [item for _, item in expected]
    assert [math.isclose(a, b, rel_tol=1e-4) for a, (b, _) in zip(found["cosine"][:3], expected, strict=True)] == [
        True
    ] * 3
    assert recommender.similar(["a5"], 3, only=["a5", "a7"])["similar"].to_list() == ["a7"]
    with pytest.raises(UserError, match="items: the catalogue has no item 'zz'"):
        recommender.similar(["zz"])


def test_titles_stand_beside_their_items() -> None:
    recommender = RECOMMENDERS["sasrec"]
    titled = recommender.titles(recommender.recommend([["a1"]], 2))
    assert titled["title"].to_list() == [f"Item {item[1:]}" for item in titled["item"]]


def test_a_search_finds_titles_and_ids_by_every_word() -> None:
    known = catalogue(30)
    assert [each["item"] for each in known.search("item 3", 5)] == ["a3", "a13", "a23", "a30"]
    assert [each["item"] for each in known.search("A30", 5)] == ["a30"]
    assert [each["item"] for each in known.search("", 2)] == ["a1", "a2"]
    assert known.search(".*", 2) == []


def test_numbers_that_are_not_finite_are_refused() -> None:
    engine = random_engine()
    broken = engine.restored.output_IE.clone()
    broken[3, 1] = torch.nan
    from dataclasses import replace

    from tslrec.serving.torch_engine import TorchEngine

    with pytest.raises(UserError, match="not finite"):
        TorchEngine(replace(engine.restored, output_IE=broken))
