"""The concatenation of vectors ranks as the sum of z-scores that is computed item by item in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tslrec.evaluation.hooks import EvaluatedUsers
from tslrec.evaluation.ranking import target_ranks
from tslrec.stages.ensemble.combining import combined, last_items, voice_of
from tslrec.stages.ensemble.products import Product
from tslrec.stages.ensemble.spread import Spread
from tslrec.stages.ensemble.trials import ranks_of, rows_of, some_users, weighted
from tslrec.stages.restored import Restored

ITEMS, USERS = 12, 5


def member(draws: torch.Generator, size: int, scale: float) -> tuple[Restored, Tensor]:
    """A recommender whose user vectors are rows of a table, by the first item of the history, and that table."""
    table_IE = torch.randn(ITEMS + 1, size, generator=draws) * scale
    user_UE = torch.randn(USERS, size, generator=draws)
    return Restored(lambda items_BL, lengths_B: user_UE[items_BL[:, 0] - 1], table_IE, 4), user_UE


def z_scores(table_IE: Tensor, user_UE: Tensor) -> np.ndarray:
    """By item, in float64."""
    scores_UI = user_UE.double().numpy() @ table_IE[1:].double().numpy().T
    found: np.ndarray = (scores_UI - scores_UI.mean(axis=1, keepdims=True)) / scores_UI.std(axis=1, keepdims=True)
    return found


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    # A table of more columns than items has another way to its standard deviations.
    sizes=st.lists(st.integers(2, 16), min_size=1, max_size=4),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    drawn=st.lists(st.floats(0.01, 1), min_size=4, max_size=4),
    left_out=st.booleans(),
)
def test_the_sum_of_z_scores_is_a_dot_product(
    seed: int, sizes: list[int], scale: float, drawn: list[float], left_out: bool
) -> None:
    draws = torch.Generator().manual_seed(seed)
    members = [member(draws, size, scale ** (number % 2)) for number, size in enumerate(sizes)]
    weights = drawn[: len(members)]
    if left_out and len(members) > 1:
        weights[0] = 0.0
    ensemble = combined([voice_of(each, "z") for each, _ in members], weights)
    items_UL = torch.arange(1, USERS + 1)[:, None]
    user_UF = ensemble.encode(items_UL, torch.ones(USERS, dtype=torch.int64))
    parts = zip(members, weights, strict=True)
    expected_UI = np.sum([weight * z_scores(each.output_IE, vectors) for (each, vectors), weight in parts], axis=0)
    found_UI = (user_UF @ ensemble.output_IE[1:].T).double().numpy()
    # The mean over items is the same for all items of a user, so it is left out of the scores.
    np.testing.assert_allclose(found_UI - found_UI.mean(axis=1, keepdims=True), expected_UI, atol=1e-4)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**31), users=st.integers(1, 6), numbers=st.integers(0, 3), scores=st.sampled_from(["z", "raw"])
)
def test_users_of_few_numbers_are_scored_by_these_alone(seed: int, users: int, numbers: int, scores: str) -> None:
    """As EASE's users are; a table of 200 items, so that three numbers are few."""
    draws = torch.Generator().manual_seed(seed)
    wide_IE, narrow_IE = (torch.randn(201, size, generator=draws) for size in (201, 3))
    wide_UE, narrow_UE = torch.zeros(users, 201), torch.randn(users, 3, generator=draws)
    places_UN = torch.randint(0, 201, (users, numbers), generator=draws)
    wide_UE.scatter_(1, places_UN, torch.randn(users, numbers, generator=draws))
    members = [Restored(lambda *_: wide_UE, wide_IE, 1), Restored(lambda *_: narrow_UE, narrow_IE, 1)]
    product = Product(wide_IE)
    assert product.is_wide
    torch.testing.assert_close(product(wide_UE), wide_UE @ wide_IE[1:].T)
    ensemble = combined([voice_of(each, scores) for each in members], [0.25, 0.75])
    assert ensemble.faster_scores is not None
    user_UF = ensemble.encode(torch.ones(users, 1, dtype=torch.int64), torch.ones(users, dtype=torch.int64))
    torch.testing.assert_close(ensemble.scores(user_UF), user_UF @ ensemble.output_IE[1:].T)


def test_raw_scores_are_summed_as_they_are() -> None:
    members = [member(torch.Generator().manual_seed(seed), 3, 1.0) for seed in (0, 1)]
    ensemble = combined([voice_of(each, "raw") for each, _ in members], [0.25, 0.75])
    user_UF = ensemble.encode(torch.arange(1, USERS + 1)[:, None], torch.ones(USERS, dtype=torch.int64))
    (first, first_UE), (second, second_UE) = members
    expected = 0.25 * first_UE @ first.output_IE.T + 0.75 * second_UE @ second.output_IE.T
    torch.testing.assert_close(user_UF @ ensemble.output_IE.T, expected)


@pytest.mark.parametrize("size", [3, 20])
def test_a_user_with_one_score_for_all_items_is_not_heard(size: int) -> None:
    table_IE = torch.ones(ITEMS + 1, size) * 0.1
    inverse_B = Spread(Product(table_IE)).inverse(torch.randn(USERS, size, generator=torch.Generator().manual_seed(0)))
    assert inverse_B.tolist() == [0.0] * USERS


def test_a_member_sees_the_last_items_that_it_reads() -> None:
    items_BL = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 0, 0, 0], [1, 2, 3, 4, 0]])
    shorter_BK, kept_B = last_items(items_BL, torch.tensor([5, 2, 4]), 3)
    assert shorter_BK.tolist() == [[3, 4, 5], [6, 7, 0], [2, 3, 4]]
    assert kept_B.tolist() == [3, 2, 3]
    assert last_items(items_BL, kept_B, 5)[0] is items_BL


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31), rows=st.integers(1, USERS))
def test_trials_rank_as_the_evaluation_does(data: st.DataObject, seed: int, rows: int) -> None:
    """Whole numbers, so that sums are exact and many scores are equal."""
    draws = torch.Generator().manual_seed(seed)
    tables = [torch.randint(-2, 3, (ITEMS + 1, size), generator=draws).float() for size in (2, 3)]
    vectors = [torch.randint(-2, 3, (USERS, size), generator=draws).float() for size in (2, 3)]
    weights = (0.5, 2.0)
    pairs = sorted(data.draw(st.sets(st.tuples(st.integers(0, USERS - 1), st.integers(1, ITEMS)))))
    users = EvaluatedUsers(
        torch.arange(USERS),
        torch.randint(1, ITEMS + 1, (USERS,), generator=draws),
        torch.tensor([row for row, _ in pairs], dtype=torch.int64),
        torch.tensor([item for _, item in pairs], dtype=torch.int64),
    )
    expected = target_ranks(
        torch.cat([weight * each for weight, each in zip(weights, vectors, strict=True)], dim=1),
        torch.cat(tables, dim=1),
        *users[1:],
    )
    scores = [each @ table[1:].T for each, table in zip(vectors, tables, strict=True)]
    for masked, ranks_B in zip((True, False), expected, strict=True):
        found = []
        for begin in range(0, USERS, rows):
            end = min(USERS, begin + rows)
            part = weighted([each[begin:end] for each in scores], weights)
            found.append(ranks_of(part, some_users(users, begin, end), masked=masked))
        assert torch.equal(torch.cat(found), ranks_B)


@pytest.mark.parametrize(("begin", "end"), [(0, 3), (2, 5), (4, 9)])
def test_rows_of_sparse_vectors_are_those_of_the_vectors(begin: int, end: int) -> None:
    user_BE = torch.randn(USERS, 7, generator=torch.Generator().manual_seed(1)).relu()
    assert torch.equal(rows_of(user_BE, begin, end), user_BE[begin:end])
    assert torch.equal(rows_of(user_BE.to_sparse(), begin, end), user_BE[begin:end])
