"""The search for weights: deterministic, never below the best member, and close to the best weights of a bowl."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tslrec.stages.ensemble.search import ROUNDS, Weights, neighbours, search, weights_of


def bowl(best: Weights) -> tuple[list[int], object]:
    """A measure that falls with the distance to the best weights, in octaves, and how many it was asked for."""
    asked: list[int] = []

    def measure(weightings: Sequence[Weights]) -> list[float]:
        asked.append(len(weightings))
        return [
            -math.inf
            if min(each) == 0
            else -sum(math.log2(own / wanted * best[0] / each[0]) ** 2 for own, wanted in zip(each, best, strict=True))
            for each in weightings
        ]

    return asked, measure


@pytest.mark.parametrize("best", [(0.95, 0.05), (0.05, 0.95), (0.5, 0.5), (0.9, 0.07, 0.03), (0.1, 0.2, 0.3, 0.4)])
def test_it_finds_the_best_weights_of_a_bowl(best: Weights) -> None:
    asked, measure = bowl(best)
    found, trials = search(len(best), measure)  # type: ignore[arg-type]
    for own, wanted in zip(found.weights, best, strict=True):
        # Half of the smallest step is 2^(1/8), a twelfth; a sum of weights that moves along adds another one.
        assert own == pytest.approx(wanted, rel=0.2)
    assert sum(found.weights) == pytest.approx(1)
    assert len(trials) == sum(asked)
    assert len(trials) <= 1 + len(best) + 2 * len(best) * ROUNDS


@settings(max_examples=200, deadline=None)
@given(count=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_any_values_end_in_the_best_trial(count: int, seed: int) -> None:
    def measure(weightings: Sequence[Weights]) -> list[float]:
        return [float(hash((seed, *(round(weight, 9) for weight in each))) % 1000) for each in weightings]

    found, trials = search(count, measure)
    assert found.value == max(trial.value for trial in trials)
    assert search(count, measure) == (found, trials)
    weightings = [trial.weights for trial in trials]
    assert len(set(weightings)) == len(weightings)
    for member in range(count):
        assert tuple(float(member == other) for other in range(count)) in weightings
    for weights in weightings:
        assert sum(weights) == pytest.approx(1)


def test_equal_weights_win_where_all_are_equally_good() -> None:
    found, _ = search(3, lambda weightings: [0.5] * len(weightings))
    assert found.weights == weights_of((0, 0, 0))


def test_a_step_changes_the_ratio_of_one_weight_to_all_others() -> None:
    assert set(neighbours((0, 0, 0), 4)) == {(0, -4, -4), (0, 4, 4), (0, 4, 0), (0, -4, 0), (0, 0, 4), (0, 0, -4)}
    assert weights_of((0, 4)) == pytest.approx((1 / 3, 2 / 3))
