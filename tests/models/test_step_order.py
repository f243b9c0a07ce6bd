"""The order of steps holds every position once, and each step continues the first sequences of the step before."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.packed import packing_of
from tslrec.models.step_order import StepOrder, order_of_packing, order_of_rows

packed_rows = st.lists(st.lists(st.integers(1, 7), max_size=4), min_size=1, max_size=5)
"""The lengths of each row's sequences."""


def assert_in_order(order: StepOrder, starts: list[int], lengths: list[int]) -> None:
    """The order is what its attributes promise, for sequences that lie at these places."""
    assert order.counts == [sum(length > step for length in lengths) for step in range(max(lengths, default=0))]
    expected = {start + step for start, length in zip(starts, lengths, strict=True) for step in range(length)}
    assert sorted(order.places_T.tolist()) == sorted(expected)
    steps = order.places_T.split(order.counts)
    for before, now in pairwise(steps):
        assert torch.equal(before[: len(now)] + 1, now)
    ends = [start + length - 1 for start, length in zip(starts, lengths, strict=True)]
    assert order.places_T[order.last_S].tolist() == ends


@settings(max_examples=60, deadline=None)
@given(rows=packed_rows, more=st.integers(0, 3))
def test_of_packed_rows(rows: list[list[int]], more: int) -> None:
    width = max(map(sum, rows)) + more
    starts = [width * row + sum(lengths[:i]) for row, lengths in enumerate(rows) for i in range(len(lengths))]
    order = order_of_packing(packing_of(rows, width))
    assert_in_order(order, starts, [length for lengths in rows for length in lengths])


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), max_size=8), more=st.integers(0, 3))
def test_of_rows_with_one_sequence_each(lengths: list[int], more: int) -> None:
    width = max(lengths, default=0) + more
    starts = [width * row for row in range(len(lengths))]
    assert_in_order(order_of_rows(torch.tensor(lengths, dtype=torch.int64), width), starts, lengths)


def test_values_come_back_to_their_places() -> None:
    order = order_of_rows(torch.tensor([2, 3, 1]), 4)
    rows = torch.tensor([[5, 6, 0, 0], [7, 8, 9, 0], [4, 0, 0, 0]])
    taken = order.take(rows)
    assert taken.tolist() == [7, 5, 4, 8, 6, 9]
    assert torch.equal(order.restore(taken[:, None], rows.shape)[..., 0], rows)
