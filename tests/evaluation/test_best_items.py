"""The best columns are those of a full stable sort, ties included."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tslrec.evaluation.best_items import best_columns, merged, padded_to, stable_order


def by_sorting(scores_BC: Tensor, length: int) -> tuple[Tensor, Tensor]:
    scores, columns = scores_BC.sort(dim=1, descending=True, stable=True)
    return columns[:, :length], scores[:, :length]


@st.composite
def scores_with_ties(draw: st.DrawFn) -> tuple[Tensor, int]:
    """Score rows with few distinct values, minus infinity among them, and a length."""
    rows, columns = draw(st.integers(1, 4)), draw(st.sampled_from([1, 3, 63, 64, 65, 640, 1000, 3000]))
    levels = draw(st.integers(1, 200))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scores_BC = torch.randint(levels, (rows, columns), generator=generator).float()
    scores_BC[torch.rand(rows, columns, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.99]))] = -torch.inf
    return scores_BC, draw(st.integers(1, columns))


@settings(max_examples=200, deadline=None)
@given(scores_with_ties())
def test_equals_a_full_stable_sort(device: torch.device, drawn: tuple[Tensor, int]) -> None:
    scores_BC, length = drawn
    best = best_columns(scores_BC.to(device), length)
    for found, expected in zip(best, by_sorting(scores_BC, length), strict=True):
        assert torch.equal(found.cpu(), expected)


def test_a_tie_at_the_last_place_goes_to_the_first_column(device: torch.device) -> None:
    scores_BC = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0], [5.0, 4.0, 3.0, 2.0, 1.0]], device=device)
    assert stable_order(scores_BC, 2).tolist() == [[1, 2], [0, 1]]


@settings(max_examples=50, deadline=None)
@given(scores_with_ties(), st.integers(1, 2999))
def test_lists_of_two_halves_merge_to_the_list_of_the_whole(
    device: torch.device, drawn: tuple[Tensor, int], cut: int
) -> None:
    scores_BC, length = drawn[0].to(device), drawn[1]
    columns = scores_BC.shape[1]
    cut = min(cut, columns - 1)
    if cut < 1:
        return
    first = by_sorting(scores_BC[:, :cut], min(length, cut))
    second = by_sorting(scores_BC[:, cut:], min(length, columns - cut))
    found = merged(first, (second[0] + cut, second[1]), length)
    for each, expected in zip(found, by_sorting(scores_BC, length), strict=True):
        assert torch.equal(each, expected)


def test_padding_fills_a_list() -> None:
    columns, scores = padded_to(torch.tensor([[4]]), torch.tensor([[1.5]]), 3)
    assert columns.tolist() == [[4, 0, 0]]
    assert scores.tolist() == [[1.5, -torch.inf, -torch.inf]]
