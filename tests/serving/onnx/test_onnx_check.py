"""Lists of two engines are the same, nearly tied, or different."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tslrec.serving.engine import Batch, Floats, Ids
from tslrec.serving.histories import Histories
from tslrec.serving.onnx.check import compare, require_agreement
from tslrec.system.errors import UserError

HISTORIES = Histories(pl.Series("user", [10, 11, 12]), np.array([1, 2, 3, 1]), np.array([0, 1, 2, 4]))
SCORES = np.array([0, 1.0, 2.0, 3.0, 3.0 + 1e-6])
"""Of each item, for every user; items 3 and 4 are nearly tied."""


class Fixed:
    """An engine that gives every user the same list."""

    name = "fixed"
    num_items = 4
    max_len = 5

    def __init__(self, ids: list[int], scores: list[float]) -> None:
        self.ids, self.listed = np.array(ids), np.array(scores, dtype=np.float32)

    def best_items(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        size = len(batch.items_BL)
        return np.tile(self.ids[:length], (size, 1)), np.tile(self.listed[:length], (size, 1))

    def scores(self, batch: Batch, candidates_C: Ids) -> Floats:
        return np.tile(SCORES[candidates_C].astype(np.float32), (len(batch.items_BL), 1))

    def user_vectors(self, batch: Batch) -> Floats:
        return np.ones((len(batch.items_BL), 1), dtype=np.float32)

    def item_vectors(self) -> Floats:
        return SCORES.astype(np.float32)[:, None]


RIGHT = Fixed([4, 3, 2], [3.0, 3.0, 2.0])


@pytest.mark.parametrize(
    ("ids", "scores", "same", "near_ties", "different"),
    [
        ([4, 3, 2], [3.0, 3.0, 2.0], 3, 0, 0),
        ([3, 4, 2], [3.0, 3.0, 2.0], 0, 3, 0),
        ([4, 2, 3], [3.0, 3.0, 2.0], 0, 0, 3),
        ([4, 4, 2], [3.0, 3.0, 2.0], 0, 0, 3),
        ([4, 3, 2], [3.0, 3.0, 2.1], 0, 0, 3),
        ([4, 3, 0], [3.0, 3.0, -np.inf], 0, 0, 3),
        ([4, 3, 2], [3.0, 3.0, np.nan], 0, 0, 3),
    ],
    ids=["same", "near tie", "other order", "an item twice", "other scores", "one less", "NaN"],
)
def test_lists_are_told_apart(ids: list[int], scores: list[float], same: int, near_ties: int, different: int) -> None:
    agreement = compare(RIGHT, Fixed(ids, scores), HISTORIES, 3, filter_seen=True)
    found = (agreement.users, agreement.same, agreement.near_ties, len(agreement.different))
    assert found == (3, same, near_ties, different)


def test_empty_places_are_the_same() -> None:
    short = Fixed([4, 3, 0], [3.0, 3.0, -np.inf])
    assert compare(short, short, HISTORIES, 3, filter_seen=True).share == 1


def test_other_lists_are_refused_with_a_user() -> None:
    agreement = compare(RIGHT, Fixed([1, 3, 2], [3.0, 3.0, 2.0]), HISTORIES, 3, filter_seen=True)
    with pytest.raises(UserError, match=r"for 3 of 3 lists .* \(user 10 for one\)"):
        require_agreement(agreement, HISTORIES)
