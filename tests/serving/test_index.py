"""Engines that find items in an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.random_recommenders import ITEMS, assert_best, engines, random_batch
from tslrec.serving import hnsw
from tslrec.serving.engine import Batch, Engine, Floats, Ids
from tslrec.serving.index import WIDEST, approximate, exact
from tslrec.system.errors import UserError

MANY = 5_000


class Made:
    """An exact engine whose users are rows of a table; it counts how often it is asked for lists.

    Args:
        num_items: I.
        seed: of the random vectors.
    """

    name = "made"
    max_len = 1

    def __init__(self, num_items: int, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.num_items = num_items
        self.table_IE = generator.standard_normal((num_items + 1, 8), dtype=np.float32)
        self.table_IE[0] = 0
        self.asked: list[int] = []

    def best_items(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        self.asked.append(len(batch.items_BL))
        scores_BI = self.scores(batch, np.arange(self.num_items + 1))
        masked_BI = np.full_like(scores_BI, -np.inf)
        allowed = np.arange(1, self.num_items + 1) if candidates_C is None else candidates_C
        masked_BI[:, allowed] = scores_BI[:, allowed]
        masked_BI[batch.seen_rows_S, batch.seen_items_S] = -np.inf
        order_BK = np.argsort(-masked_BI, axis=1, kind="stable")[:, :length]
        found_BK = np.take_along_axis(masked_BI, order_BK, axis=1)
        return np.where(found_BK == -np.inf, 0, order_BK), found_BK

    def scores(self, batch: Batch, candidates_C: Ids) -> Floats:
        return self.user_vectors(batch) @ self.table_IE[candidates_C].T

    def user_vectors(self, batch: Batch) -> Floats:
        return self.table_IE[batch.items_BL[:, -1]]

    def item_vectors(self) -> Floats:
        return self.table_IE


def made_batch(seed: int, size: int, num_items: int, seen: int = 5) -> Batch:
    return random_batch(seed, size, seen=seen, items=num_items, max_len=1)


def all_scores(engine: Engine, batch: Batch) -> Floats:
    return engine.scores(batch, np.arange(engine.num_items + 1))


@pytest.mark.parametrize("seen", [0, 5, 300])
@pytest.mark.parametrize("length", [1, 10, 100])
def test_the_exact_index_gives_the_best_items(seen: int, length: int) -> None:
    inner = Made(MANY)
    engine = exact(inner)
    for seed in range(3):
        batch = made_batch(seed, 4, MANY, seen)
        for candidates_C in (None, np.arange(1, MANY + 1, 2)):
            lists = engine.best_items(batch, length, candidates_C)
            assert_best(*lists, all_scores(inner, batch), batch, candidates_C)


def test_an_index_around_a_backbone_gives_its_lists() -> None:
    reference, full, _ = engines("sasrec")
    batch = random_batch(0, 9)
    for engine in (exact(full), approximate(full)):
        for length in (1, 5, ITEMS):
            assert_best(*engine.best_items(batch, length, None), all_scores(reference, batch), batch, None)
        np.testing.assert_array_equal(engine.user_vectors(batch), full.user_vectors(batch))
        np.testing.assert_array_equal(engine.item_vectors(), full.item_vectors())
        np.testing.assert_array_equal(engine.scores(batch, np.array([4])), full.scores(batch, np.array([4])))


def test_hnsw_finds_nearly_all_of_the_best_items() -> None:
    inner = Made(MANY)
    engine = approximate(inner)
    batch = made_batch(0, 200, MANY)
    ids_BK, scores_BK = engine.best_items(batch, 10, None)
    best_BK, _ = inner.best_items(batch, 10, None)
    assert np.mean([len(np.intersect1d(*rows)) / 10 for rows in zip(ids_BK, best_BK, strict=True)]) > 0.9
    # What it finds has the right score, in falling order, and was not seen.
    expected_BK = np.take_along_axis(all_scores(inner, batch), ids_BK, axis=1)
    np.testing.assert_allclose(scores_BK, expected_BK, rtol=1e-4)
    assert (np.diff(scores_BK, axis=1) <= 0).all()
    seen = set(zip(batch.seen_rows_S.tolist(), batch.seen_items_S.tolist(), strict=True))
    assert not seen & {(row, item) for row, ids_K in enumerate(ids_BK.tolist()) for item in ids_K}


def test_found_items_of_equal_scores_are_in_the_order_of_their_numbers() -> None:
    inner = Made(MANY)
    inner.table_IE[1:] = 1
    batch = Batch(np.array([[1]]), np.array([1]), np.array([0]), np.array([2]))
    ids_K = exact(inner).best_items(batch, 5, None)[0][0].tolist()
    assert ids_K == sorted(ids_K)


def test_few_candidates_are_scored_by_the_other_engine() -> None:
    inner = Made(MANY)
    engine = approximate(inner)
    batch = made_batch(0, 3, MANY)
    few = np.array([3, 50, 700])
    assert_best(*engine.best_items(batch, 10, few), all_scores(inner, batch), batch, few)
    assert inner.asked == [3]


def test_many_seen_items_are_left_to_the_other_engine() -> None:
    inner = Made(MANY)
    seen = np.arange(1, WIDEST + 1)
    batch = Batch(np.array([[1]]), np.array([1]), np.zeros(len(seen), dtype=np.int64), seen)
    assert_best(*approximate(inner).best_items(batch, 10, None), all_scores(inner, batch), batch, None)
    assert inner.asked == [1]


def test_a_user_for_whom_the_filter_leaves_too_few_is_asked_for_alone() -> None:
    """The candidates are the worst items of the first user, and as many of the best of the second."""
    inner = Made(MANY)
    batch = Batch(np.array([[7], [9]]), np.array([1, 1]), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    order = np.argsort(-all_scores(inner, batch)[1, 1:], kind="stable") + 1
    away = np.argsort(-all_scores(inner, batch)[0, 1:], kind="stable") + 1
    candidates_C = np.sort(np.setdiff1d(order[:3000], away[:300]))
    lists = exact(inner).best_items(batch, 20, candidates_C)
    assert_best(*lists, all_scores(inner, batch), batch, candidates_C)
    assert inner.asked == [1]


def test_a_graph_that_was_written_finds_the_same(tmp_path: Path) -> None:
    inner = Made(MANY)
    vectors_IE = inner.table_IE[1:]
    index = hnsw.build(vectors_IE)
    hnsw.write_graph(index, tmp_path / "index.safetensors")
    again = hnsw.read_graph(tmp_path / "index.safetensors", vectors_IE)
    for found, expected in zip(
        hnsw.search(again, vectors_IE[:50], 20), hnsw.search(index, vectors_IE[:50], 20), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert approximate(inner, tmp_path / "index.safetensors").name == "hnsw over made"


def change(arrays: dict[str, Any], what: str) -> None:
    """Damages a graph's arrays."""
    upper = int(np.argmax(arrays["levels"] > 1))
    begin = int((np.where(arrays["levels"][:upper] > 0, 2 * hnsw.M, 0)).sum())
    lowest = int(np.argmax(arrays["levels"] == 1))
    match what:
        case "a neighbour far away":
            arrays["neighbours"][3] = 10**6
        case "a negative neighbour":
            arrays["neighbours"][3] = -2
        case "a neighbour that lacks the level":
            arrays["neighbours"][begin + 2 * hnsw.M] = lowest
        case "one neighbour less":
            arrays["neighbours"] = arrays["neighbours"][:-1].copy()
        case "no levels":
            arrays["levels"][0] = 0
        case "a thousand levels":
            arrays["levels"][0] = 1000
        case "an entry far away":
            arrays["entry"][0] = 10**6
        case "an entry of the lowest level":
            arrays["entry"][0] = lowest
        case "other numbers":
            arrays["neighbours"] = arrays["neighbours"].astype(np.float32)
        case "an array less":
            del arrays["entry"]


@pytest.mark.parametrize(
    "what",
    [
        "a neighbour far away",
        "a negative neighbour",
        "a neighbour that lacks the level",
        "one neighbour less",
        "no levels",
        "a thousand levels",
        "an entry far away",
        "an entry of the lowest level",
        "other numbers",
        "an array less",
    ],
)
def test_a_graph_that_leads_outside_of_itself_is_refused(what: str, tmp_path: Path) -> None:
    vectors_IE = Made(500).table_IE[1:]
    path = tmp_path / "index.safetensors"
    hnsw.write_graph(hnsw.build(vectors_IE), path)
    arrays = {name: array.copy() for name, array in load_file(path).items()}
    change(arrays, what)
    save_file(arrays, path)
    with pytest.raises(UserError, match=r"index\.safetensors: .*; export the recommender again"):
        hnsw.read_graph(path, vectors_IE)


def test_a_graph_of_other_items_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.safetensors"
    hnsw.write_graph(hnsw.build(Made(500).table_IE[1:]), path)
    with pytest.raises(UserError, match="a graph of 500 items, but the recommender has 400"):
        hnsw.read_graph(path, Made(400).table_IE[1:])


def test_a_faiss_file_is_not_read(tmp_path: Path) -> None:
    """The reader of faiss trusts what it reads."""
    vectors_IE = Made(100).table_IE[1:]
    path = tmp_path / "index.safetensors"
    faiss.write_index(hnsw.build(vectors_IE), str(path))
    with pytest.raises(UserError, match="not safetensors"):
        hnsw.read_graph(path, vectors_IE)
