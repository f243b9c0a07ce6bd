"""Whether one method is better than another: the paper's t-test, a paired bootstrap, and Holm's correction.

Shapes: S seeds, U users, D users for whom two methods differ, B draws of the bootstrap.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
"""Draws of the bootstrap."""
CHUNK = 500
"""Draws that are held in memory at a time."""
LEVEL = 0.05
"""The paper's level of significance, and one minus the coverage of intervals."""

NDCG_PER_HIT = 1 / math.log2(11), 1 / math.log2(7)
"""What a hit at one of the ranks 6 to 10 adds to NDCG@10: the least (rank 10) and the most (rank 6)."""

NDCG_PER_NEAR_HIT = 1 / math.log2(6), 1.0
"""What a hit at one of the ranks 1 to 5 adds to NDCG@5: the least (rank 5) and the most (rank 1)."""


@dataclass(frozen=True)
class Comparison:
    """A method compared with a rival by one metric.

    Attributes:
        gain: the mean difference; above 0 where the method is better.
        rival: the rival's mean.
        low: lower end of the bootstrap's 95 % interval of the mean difference.
        high: upper end of that interval.
        bootstrap: p-value of the paired bootstrap over seeds and users, two-sided.
        t_users: p-value of Student's two-sample t-test whose unit is a user (averaged over seeds).
        t_seeds: p-value of the same test whose unit is a seed's mean; None with a single seed.
        t_least: the smallest gain at which `t_users` would be at most `LEVEL`, with these variances.
        users: U.
        seeds: S.
    """

    gain: float
    rival: float
    low: float
    high: float
    bootstrap: float
    t_users: float
    t_seeds: float | None
    t_least: float
    users: int
    seeds: int

    def relative(self, difference: float) -> float:
        """A difference as a share of the rival's mean."""
        if self.rival:
            return difference / self.rival
        return math.copysign(math.inf, difference) if difference else 0.0


def compare(method_SU: NDArray[np.float64], rival_SU: NDArray[np.float64], *, draws: int = DRAWS) -> Comparison:
    """Compares two methods by the value that each user adds to a metric.

    Args:
        method_SU: the method's values.
        rival_SU: the rival's values, of the same seeds and users in the same order.
        draws: number of draws of the bootstrap.

    Raises:
        ValueError: if the two do not have the same numbers of seeds and users.
    """
    if method_SU.shape != rival_SU.shape or method_SU.ndim != 2:
        raise ValueError(f"{method_SU.shape} beside {rival_SU.shape}: not of the same seeds and users")
    seeds, users = method_SU.shape
    p_value, low, high = paired_bootstrap(method_SU - rival_SU, draws=draws)
    by_user = method_SU.mean(axis=0), rival_SU.mean(axis=0)
    by_seed = method_SU.mean(axis=1), rival_SU.mean(axis=1)
    return Comparison(
        gain=float(method_SU.mean() - rival_SU.mean()),
        rival=float(rival_SU.mean()),
        low=low,
        high=high,
        bootstrap=p_value,
        t_users=t_test(*by_user),
        t_seeds=t_test(*by_seed) if seeds > 1 else None,
        t_least=least_gain(*by_user),
        users=users,
        seeds=seeds,
    )


def t_test(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The two-sided p-value of Student's two-sample t-test; 1 where it is undefined because nothing varies."""
    from scipy.stats import ttest_ind

    with warnings.catch_warnings():
        # Scipy warns of precision loss where two seeds give nearly equal values; the p-value shows it, too.
        warnings.filterwarnings("ignore", message="Precision loss", category=RuntimeWarning)
        p_value = float(ttest_ind(one, other).pvalue)
    return 1.0 if math.isnan(p_value) else p_value


def least_gain(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The smallest difference of means at which Student's two-sample t-test, samples of equal size, has p ≤ `LEVEL`."""
    from scipy.stats import t

    count = len(one)
    error = math.sqrt((one.var(ddof=1) + other.var(ddof=1)) / count)
    return float(t.ppf(1 - LEVEL / 2, 2 * count - 2)) * error


def paired_bootstrap(difference_SU: NDArray[np.float64], *, draws: int) -> tuple[float, float, float]:
    """The paired bootstrap: resamples seeds and users with replacement, the same ones for both methods.

    Users for whom the methods do not differ under any seed add nothing to a mean, and are resampled as one group.

    Args:
        difference_SU: the method's values minus the rival's.
        draws: number of draws, B.

    Returns:
        The two-sided p-value: twice the share of draws on the rarer side of 0, at most 1, where one is added to the
        number of draws on that side and to their total, so that it is never 0. And both ends of the interval that holds
        the middle 95 % of the draws.
    """
    seeds, users = difference_SU.shape
    differs_U = (difference_SU != 0).any(axis=0)
    differing_SD = difference_SU[:, differs_U]
    share = np.full(differing_SD.shape[1] + 1, 1 / users)
    share[-1] = 1 - differing_SD.shape[1] / users
    generator = np.random.default_rng(0)
    means_B = np.empty(draws)
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        seeds_BS = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=size)
        counts_BD = generator.multinomial(users, share, size=size)[:, :-1]
        sums_BS = counts_BD @ differing_SD.T
        means_B[start : start + size] = (sums_BS * seeds_BS).sum(axis=1) / (seeds * users)
    below, above = int((means_B <= 0).sum()), int((means_B >= 0).sum())
    p_value = min(1.0, 2 * (min(below, above) + 1) / (draws + 1))
    low, high = np.quantile(means_B, [LEVEL / 2, 1 - LEVEL / 2])
    return p_value, float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values of a family of tests, adjusted by Holm's (1979) method, in the given order."""
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for position, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - position) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def arithmetic(row: Sequence[float], *, rounding: float = 0.0) -> str | None:
    """Checks that HR@5, HR@10, NDCG@5 and NDCG@10 can belong to the same ranks, with one target per user.

    Args:
        row: the four metrics, in that order.
        rounding: the largest rounding error of each; .00005 for numbers printed with four digits.

    Returns:
        What is impossible; None if nothing is.
    """
    near_hits, hits, near, whole = row
    slack = 2 * rounding
    if hits < near_hits - slack or whole < near - slack:
        return "a metric at 10 is below the one at 5"
    for name, gained, count, (least, most) in (
        ("NDCG@5 / HR@5", near, near_hits, NDCG_PER_NEAR_HIT),
        ("(NDCG@10 − NDCG@5) / (HR@10 − HR@5)", whole - near, hits - near_hits, NDCG_PER_HIT),
    ):
        tolerance = slack * (1 + most) + 1e-9
        if not least * count - tolerance <= gained <= most * count + tolerance:
            ratio = f"{gained / count:.3f}" if count > 0 else "infinite"
            return f"{name} is {ratio}, not within {least:.3f} … {most:.3f}"
    return None
