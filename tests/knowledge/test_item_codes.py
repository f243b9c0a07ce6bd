"""Codes of items by residual k-means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tslrec.knowledge.item_codes import NO_CODE, joined_vectors, permuted, residual_codes
from tslrec.system.errors import UserError


def vectors(seed: int, num_items: int = 60, size: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(num_items, size)).astype(np.float32)


def test_no_table_counts_for_more_than_another() -> None:
    first: NDArray[np.float32] = (1e3 * vectors(0, 41, 4) + 7).astype(np.float32)
    second: NDArray[np.float32] = (1e-3 * vectors(1, 41, 9)).astype(np.float32)
    first[0], second[0] = 1e9, np.nan
    joined = joined_vectors([first, second])
    assert joined.shape == (40, 13)
    np.testing.assert_allclose(joined.mean(axis=0), 0, atol=1e-6)
    for block in (joined[:, :4], joined[:, 4:]):
        np.testing.assert_allclose((block.astype(np.float64) ** 2).sum(axis=1).mean(), 1, rtol=1e-5)
    # Beside the mean and the scale, a table is as it was.
    centred = first[1:] - first[1:].mean(axis=0)
    np.testing.assert_allclose(joined[:, :4] * np.linalg.norm(centred) / np.sqrt(40), centred, rtol=1e-3, atol=0.1)


@pytest.mark.parametrize("value", [0.0, 3e38, -1e-40])
def test_a_table_of_equal_rows_says_nothing(value: float) -> None:
    assert not joined_vectors([np.full((9, 3), value, dtype=np.float32)]).any()
    assert np.isfinite(joined_vectors([np.array([[0], [3e38], [-3e38], [1.0]], dtype=np.float32)])).all()


def test_levels_find_groups_and_the_groups_inside_them() -> None:
    draw = np.random.default_rng(3)
    coarse, fine = draw.integers(4, size=200), draw.integers(3, size=200)
    # The inner groups are the same in each outer one, as residual k-means needs it.
    centres, shifts = 50 * np.eye(4, 8), 5 * np.eye(3, 8, k=4)
    found, explained = residual_codes(
        (centres[coarse] + shifts[fine] + 0.01 * draw.normal(size=(200, 8))).astype(np.float32),
        [4, 3],
        num_starts=4,
        seed=0,
    )
    assert len(set(zip(coarse, found[1:, 0], strict=True))) == 4
    assert len(set(zip(fine, found[1:, 1], strict=True))) == 3
    assert len(np.unique(found[1:], axis=0)) == 12
    assert 0.9 < explained[0] < explained[1] < 1
    assert explained[1] > 0.99


def test_what_the_levels_explain_is_what_their_means_leave() -> None:
    data = vectors(2, 80) + 3
    found, explained = residual_codes(data, [4, 6], num_starts=1, seed=5)
    left = data - data.mean(axis=0)
    total = (left**2).sum()
    for level in range(2):
        for code in range(found[:, level].max() + 1):
            left[found[1:, level] == code] -= left[found[1:, level] == code].mean(axis=0)
        assert explained[level] == pytest.approx(1 - (left**2).sum() / total, abs=1e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=1, max_size=14),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    seed=st.integers(0, 5),
)
def test_each_item_has_a_code_of_each_level_or_one_line_says_why(
    rows: list[list[int]], sizes: list[int], seed: int
) -> None:
    data = np.array(rows, dtype=np.float32)
    refused = None
    try:
        found, explained = residual_codes(data, sizes, num_starts=1, seed=seed)
    except UserError as error:
        refused = str(error)
    if refused is not None:
        assert "\n" not in refused
        assert refused.startswith("codes.sizes=[")
        assert max(sizes) > 1
        return
    assert found.shape == (len(rows) + 1, len(sizes))
    assert (found[0] == NO_CODE).all()
    assert (found[1:] >= 0).all()
    assert (found[1:] < sizes).all()
    assert all(0 <= share <= 1 for share in explained)
    assert explained == pytest.approx(sorted(explained), abs=1e-9)
    # Equal items have equal codes.
    assert len(np.unique(found[1:], axis=0)) <= len(np.unique(data, axis=0))


def test_codes_are_decided_by_the_seed() -> None:
    first, _ = residual_codes(vectors(0), [7, 9], num_starts=1, seed=3)
    again, _ = residual_codes(vectors(0), [7, 9], num_starts=1, seed=3)
    other, _ = residual_codes(vectors(0), [7, 9], num_starts=1, seed=4)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_level_that_has_nothing_left_to_cluster_is_refused() -> None:
    message = r"codes\.sizes=\[20, 2\]: level 2 has 1 distinct vectors, which make no 2 groups; set it to 1 or less"
    with pytest.raises(UserError, match=message):
        residual_codes(vectors(0, 20), [20, 2], num_starts=1, seed=0)


def test_a_permutation_keeps_how_many_items_share_codes() -> None:
    found, _ = residual_codes(vectors(0), [5, 3], num_starts=1, seed=3)
    other = permuted(found, seed=1)
    assert (other[0] == NO_CODE).all()
    assert sorted(map(tuple, other)) == sorted(map(tuple, found))
    assert (other[1:] != found[1:]).any(axis=1).mean() > 0.5
    assert np.array_equal(other, permuted(found, seed=1))
    assert not np.array_equal(other, permuted(found, seed=2))
