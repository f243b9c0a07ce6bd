"""The statistics of the tables, against scipy, closed forms, and the paper's own rows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.stats import ttest_rel

from tslrec.evaluation.significance import arithmetic, compare, holm


def hits(seeds: int, users: int, rate: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((seeds, users)) < rate).astype(float)


def test_a_method_is_not_better_than_itself() -> None:
    values = hits(2, 500, 0.1, 0)
    found = compare(values, values)
    assert (found.gain, found.bootstrap, found.t_users, found.t_seeds) == (0, 1, 1, 1)


def test_the_bootstrap_of_one_seed_is_near_the_paired_t_test() -> None:
    rival = hits(1, 4000, 0.1, 0)
    method = np.where(hits(1, 4000, 0.05, 1) > 0, hits(1, 4000, 0.28, 2), rival)
    found = compare(method, rival)
    expected = ttest_rel(method[0], rival[0])
    interval = expected.confidence_interval()
    assert found.bootstrap == pytest.approx(expected.pvalue, abs=0.02)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=5e-4)
    assert found.t_seeds is None
    # Pairing is what makes it fine enough to tell.
    assert found.bootstrap < 0.05 < found.t_users


@pytest.mark.slow
def test_the_bootstrap_counts_the_chance_of_seeds() -> None:
    users = np.random.default_rng(0).random((1, 3000))
    rival = np.repeat(users, 4, axis=0)
    steady = rival + 0.01
    unsteady = rival + np.array([[0.16], [-0.1], [0.1], [-0.12]])
    assert compare(steady, rival).bootstrap == pytest.approx(2 / 10_001)
    assert compare(unsteady, rival).gain == pytest.approx(0.01)
    assert compare(unsteady, rival).bootstrap > 0.3


@pytest.mark.slow
def test_the_t_test_turns_at_the_least_gain() -> None:
    rival, other = hits(2, 3000, 0.1, 0), hits(2, 3000, 0.1, 1)
    least = compare(other, rival).t_least
    for gain, passes in ((0.99 * least, False), (1.01 * least, True)):
        found = compare(other - other.mean() + rival.mean() + gain, rival)
        assert found.t_least == pytest.approx(least)
        assert (found.t_users <= 0.05) is passes


def test_other_users_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="not of the same seeds and users"):
        compare(np.zeros((1, 5)), np.zeros((1, 6)))


def test_holm_multiplies_the_smallest_most_and_keeps_their_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ((0.0551, 0.0846, 0.0329, 0.0424), None),
        ((0.0369, 0.0590, 0.0267, 0.0329), r"is 0.281, not within 0.289 … 0.356"),
        ((0.0604, 0.0852, 0.0445, 0.0509), r"is 0.258, not within"),
        ((0.05, 0.04, 0.03, 0.03), "below the one at 5"),
        ((0.05, 0.05, 0.015, 0.015), r"NDCG@5 / HR@5 is 0.300"),
        ((0.0, 0.0, 0.0, 0.0), None),
    ],
)
def test_the_arithmetic_of_a_row(row: tuple[float, float, float, float], complaint: str | None) -> None:
    found = arithmetic(row, rounding=5e-5)
    if complaint is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(complaint, found)
