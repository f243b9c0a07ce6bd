"""The search for the weights of an ensemble: deterministic, over multiplicative steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Weights = tuple[float, ...]
"""Of the members, with the sum 1."""

Measure = Callable[[Sequence[Weights]], Sequence[float]]
"""The validation NDCG@10 of each of several weightings; larger is better."""

PER_OCTAVE = 4
"""Smallest steps between a weight and its double: a step multiplies by 2^(1/4) = 1.19 at least."""

FIRST_STEP = 8
"""The first step, in smallest steps: four times as much."""

FARTHEST = 40
"""The largest distance of two weights, in smallest steps: 1 to 1,024."""

ROUNDS = 32
"""Rounds of neighbours at most; usually it takes eight to twelve."""


@dataclass(frozen=True)
class Trial:
    """A weighting that was tried.

    Attributes:
        weights: the weighting.
        value: its validation NDCG@10.
    """

    weights: Weights
    value: float


def search(count: int, measure: Measure) -> tuple[Trial, list[Trial]]:
    """Looks for the weights with the best validation.

    It tries equal weights and each member alone. From equal weights on it tries in each round every member's weight
    multiplied and divided by the step (four at first), and moves to the best neighbour if that is better. If none is,
    the step becomes its square root. It ends when that would be below 2^(1/4). So there are 1 + M + 2 M R trials of M
    members at most in R rounds (M = 2: 3 + 2 R), and no random draw.

    Args:
        count: M.
        measure: called once for the first trials and once for each round.

    Returns:
        The best trial, of equally good ones the first, and all trials in order.
    """
    alone = [tuple(float(member == other) for other in range(count)) for member in range(count)]
    if count == 1:
        trial = Trial(alone[0], measure(alone)[0])
        return trial, [trial]
    here = (0,) * count
    tried = {here: 0.0}
    first = [weights_of(here), *alone]
    trials = [Trial(*each) for each in zip(first, measure(first), strict=True)]
    tried[here], step = trials[0].value, FIRST_STEP
    for _ in range(ROUNDS):
        near = list(dict.fromkeys(neighbours(here, step)))
        new = [each for each in near if each not in tried]
        weightings = [weights_of(each) for each in new]
        values = measure(weightings) if new else ()
        trials += [Trial(*each) for each in zip(weightings, values, strict=True)]
        tried.update(zip(new, values, strict=True))
        best = max(near, key=lambda each: tried[each], default=here)
        if tried[best] > tried[here]:
            here = best
        else:
            step //= 2
        if step == 0:
            break
    return max(trials, key=lambda trial: trial.value), trials


def neighbours(here: tuple[int, ...], step: int) -> Iterator[tuple[int, ...]]:
    """The weightings with one weight multiplied or divided by a step, as exponents; the first member's is always 0.

    Args:
        here: the exponents of the weights, in smallest steps.
        step: in smallest steps.
    """
    for member in range(len(here)):
        for change in (step, -step):
            moved = [exponent + change * (other == member) for other, exponent in enumerate(here)]
            if max(moved) - min(moved) <= FARTHEST:
                yield tuple(exponent - moved[0] for exponent in moved)


def weights_of(exponents: Sequence[int]) -> Weights:
    """Weights with the sum 1, of their exponents in smallest steps."""
    return normalised([2 ** (exponent / PER_OCTAVE) for exponent in exponents])


def normalised(weights: Sequence[float]) -> Weights:
    """Weights with the same ratios and the sum 1."""
    total = sum(weights)
    return tuple(weight / total for weight in weights)
