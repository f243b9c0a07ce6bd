"""The nearest items: what a full stable sort gives, whatever the ties, in blocks too."""

from __future__ import annotations

import numpy as np
import pytest

from tslrec.serving import nearest as module
from tslrec.serving.nearest import best_columns, nearest


def test_the_best_columns_are_those_of_a_stable_sort() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        scores = generator.integers(0, 5, generator.integers(1, 40)).astype(np.float32)
        scores[generator.integers(len(scores))] = generator.choice([-np.inf, 2])
        length = int(generator.integers(1, len(scores) + 1))
        assert best_columns(scores, length).tolist() == np.argsort(-scores, kind="stable")[:length].tolist()


@pytest.mark.parametrize("candidates", [None, [2, 3, 5, 7, 11]])
@pytest.mark.parametrize("rows_at_a_time", [1, 3, 100])
def test_blocks_give_the_same(
    candidates: list[int] | None, rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whole numbers: no order of sums matters, and many cosines are equal.
    table = np.random.default_rng(1).integers(-2, 3, (13, 3)).astype(np.float32)
    items = np.arange(1, 13) if candidates is None else np.array(candidates)
    monkeypatch.setattr(module, "BLOCK_BYTES", 4 * len(items) * rows_at_a_time)
    rows = np.array([5, 1, 12, 5])
    found, cosines = nearest(table, rows, None if candidates is None else items, 4)
    for row, mine, values in zip(rows, found, cosines, strict=True):
        wanted = table[items] @ table[row]
        wanted[items == row] = -np.inf
        order = np.argsort(-wanted, kind="stable")[:4]
        assert mine.tolist() == items[order].tolist()
        assert values.tolist() == wanted[order].tolist()
