"""The closed form of EASE: against an inverse, and against the regressions that it solves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.interactions import make_interactions
from tslrec.data.interactions import Interactions
from tslrec.stages.ease import solution
from tslrec.stages.ease.solution import item_weights, training_matrix
from tslrec.system.errors import UserError

SEQUENCES = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=9), min_size=1, max_size=12)


def random_market(seed: int, num_users: int = 80, num_items: int = 40) -> Interactions:
    draw = np.random.default_rng(seed)
    sequences = [draw.integers(1, num_items + 1, draw.integers(3, 12)).tolist() for _ in range(num_users)]
    return make_interactions(sequences, num_items)


def dense(interactions: Interactions) -> NDArray[np.float64]:
    """X, user by user."""
    matrix_UI = np.zeros((interactions.num_users, interactions.num_items))
    for user in range(interactions.num_users):
        sequence = interactions.sequence(user)
        for item in sequence[: len(sequence) - 2] if len(sequence) >= 3 else sequence:
            matrix_UI[user, item - 1] = 1
    return matrix_UI


def by_inverse(matrix_UI: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """B as the paper writes it."""
    inverse_II = np.linalg.inv(matrix_UI.T @ matrix_UI + penalty * np.eye(matrix_UI.shape[1]))
    weights_II = -inverse_II / np.diag(inverse_II)
    np.fill_diagonal(weights_II, 0)
    return weights_II


def test_the_training_part_counts_each_item_once_and_no_held_out_item() -> None:
    interactions = make_interactions([[2, 2, 1, 3, 4], [4, 4], [3, 1, 2]], num_items=5)
    assert training_matrix(interactions).toarray().tolist() == [[1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sequences=SEQUENCES, penalty=st.floats(1e-2, 1e6), block=st.integers(1, 14))
def test_it_is_the_paper_s_closed_form_whatever_the_data(
    sequences: list[list[int]], penalty: float, block: int
) -> None:
    interactions = make_interactions(sequences, 12)
    assert (training_matrix(interactions).toarray() == dense(interactions)).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solution, "BLOCK", block)
        found = item_weights(training_matrix(interactions), penalty)
    assert found.shape == (13, 13)
    assert not found[0].any()
    assert not found[:, 0].any()
    np.testing.assert_allclose(found[1:, 1:].T, by_inverse(dense(interactions), penalty), rtol=1e-5, atol=1e-7)


def test_each_item_s_weights_are_the_ridge_regression_on_the_other_items() -> None:
    matrix_UI, penalty = dense(random_market(1)), 3.0
    found = item_weights(training_matrix(random_market(1)), penalty)
    for item in range(matrix_UI.shape[1]):
        others_UI = np.delete(matrix_UI, item, axis=1)
        # Rows of √λ below the data are the penalty.
        stacked = np.concatenate([others_UI, np.sqrt(penalty) * np.eye(others_UI.shape[1])])
        wanted = np.concatenate([matrix_UI[:, item], np.zeros(others_UI.shape[1])])
        expected = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
        np.testing.assert_allclose(np.delete(found[item + 1, 1:], item), expected, atol=1e-6)
        assert found[item + 1, item + 1] == 0


def test_who_took_which_held_out_item_changes_nothing() -> None:
    data = random_market(2)
    users = data.evaluated_users
    held_out = np.concatenate([data.offsets[users + 1] - 2, data.offsets[users + 1] - 1])
    items = data.items.copy()
    items[held_out] = np.random.default_rng(5).permutation(items[held_out])
    others = Interactions(name=data.name, items=items, offsets=data.offsets, ids=data.ids)
    assert (items != data.items).any()
    assert np.array_equal(item_weights(training_matrix(data), 5.0), item_weights(training_matrix(others), 5.0))


@pytest.mark.parametrize("penalty", [1e-300, 1e-40])
def test_a_penalty_that_solves_nothing_is_refused(penalty: float) -> None:
    interactions = make_interactions([[1, 2, 3, 1, 1], [1, 2, 3, 1, 1]], num_items=4)
    with pytest.raises(UserError, match=r"^ease\.penalty=1e-\d+: too small.*set it higher$"):
        item_weights(training_matrix(interactions), penalty)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sequences=SEQUENCES, exponent=st.integers(-320, 300))
def test_any_penalty_gives_finite_weights_or_is_refused(sequences: list[list[int]], exponent: int) -> None:
    penalty = float(f"1e{exponent}")
    refused, found = None, None
    try:
        found = item_weights(training_matrix(make_interactions(sequences, 12)), penalty)
    except UserError as error:
        refused = str(error)
    if found is None:
        assert penalty < 1e-6
        assert refused is not None
        assert refused.startswith("ease.penalty=")
        assert "\n" not in refused
    else:
        assert np.isfinite(found).all()
        assert not found.diagonal().any()


def test_a_very_large_penalty_leaves_weights_that_are_small_and_finite() -> None:
    found = item_weights(training_matrix(random_market(1)), 1e12)
    assert np.isfinite(found).all()
    assert 0 < np.abs(found).max() < 1e-9
