"""What a careful person asks of a data set before believing a number that was measured on it.

The split is leave-one-out (`Interactions.train_lengths`), a target's history is everything of its user before it, and
every share of users is of the evaluated ones, where nothing else is said. Time and memory grow with the interactions.

Shapes: N interactions, U users, E evaluated users, I items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.audit_times import TimeFacts, time_facts
from tslrec.interactions import PADDING, Interactions
from tslrec.part import Part, part
from tslrec.table1 import table1_row
from tslrec.windows import Prefixes, all_prefixes

TEST, VALIDATION = 1, 2
"""How many of a user's last items are held out when this one is the target."""


@dataclass(frozen=True)
class Lengths:
    """Interactions per user; quartiles are interpolated linearly."""

    shortest: int
    first_quartile: float
    median: float
    mean: float
    third_quartile: float
    longest: int


@dataclass(frozen=True)
class EvaluationFacts:
    """What leave-one-out can measure, and what no model can get right.

    Attributes:
        too_short: users, of all, with fewer than 3 interactions: they train only.
        repeats: interactions whose user had the same item before.
        unreachable_test: users whose test target is in its own history, so that it is no candidate once history is
            masked: the best possible HR is 1 minus this share.
        unreachable_validation: the same of the validation target.
        cold_test: users whose test target occurs in no user's training part.
        cold_validation: the same of the validation target.
    """

    too_short: Part
    repeats: Part
    unreachable_test: Part
    unreachable_validation: Part
    cold_test: Part
    cold_validation: Part


@dataclass(frozen=True)
class TrainingFacts:
    """How much there is to train on.

    Attributes:
        interactions: those of the training parts, of all.
        prefixes: every prefix of length 1 or more of a training part, with the item after it as target.
        recent_positions: E4SRec's rule: a target at each of the last `max_len` positions of a training part, its
            first position too, with an empty history.
    """

    interactions: Part
    prefixes: int
    recent_positions: int


@dataclass(frozen=True)
class TruncationFacts:
    """What is lost where a model sees a history's last `max_len` items only.

    Attributes:
        max_len: the number of items.
        long_test_inputs: users whose test input is longer.
        cut_test_items: items of test inputs that are cut off, of all items of test inputs.
        cut_targets: training prefixes that lose a part of their history. Where `training.all_positions` trains
            windows instead, a target sees half of `max_len` at least (`all_windows`).
        old_interactions: training interactions before the last `max_len` of their user's training part, which
            E4SRec's rule and the language model's example leave out.
    """

    max_len: int
    long_test_inputs: Part
    cut_test_items: Part
    cut_targets: Part
    old_interactions: Part


@dataclass(frozen=True)
class PopularityFacts:
    """How few items most interactions are about, the test set included.

    Attributes:
        top_1_percent: interactions with the most popular 1 % of the items (rounded up to a whole item).
        top_10_percent: the same of 10 %.
    """

    top_1_percent: Part
    top_10_percent: Part


@dataclass(frozen=True)
class Audit:
    """All facts.

    Attributes:
        table1: the data set's row of the paper's Table 1.
        duplicates: rows with the user, item and timestamp of an earlier one, of all rows before any filter; None
            without timestamps, where a repeat is a repeat. They are part of everything else that is counted.
        times: None without timestamps.
    """

    table1: dict[str, float]
    duplicates: Part | None
    lengths: Lengths
    evaluation: EvaluationFacts
    training: TrainingFacts
    truncation: TruncationFacts
    popularity: PopularityFacts
    times: TimeFacts | None


def audit(interactions: Interactions, max_len: int, duplicates: Part | None = None) -> Audit:
    """Counts everything.

    Args:
        interactions: with one user at least who is evaluated.
        max_len: how many of a user's last items a backbone sees.
        duplicates: what was counted of the raw rows, which are gone by now.
    """
    train_N = interactions.trained
    prefixes = all_prefixes(interactions, max_len)
    return Audit(
        table1=table1_row(interactions),
        duplicates=duplicates,
        lengths=length_facts(interactions),
        evaluation=evaluation_facts(interactions, train_N),
        training=TrainingFacts(
            interactions=part(train_N.sum(), interactions.num_interactions),
            prefixes=len(prefixes),
            recent_positions=int(np.minimum(interactions.train_lengths, max_len).sum()),
        ),
        truncation=truncation_facts(interactions, prefixes, max_len),
        popularity=popularity_facts(interactions),
        times=time_facts(interactions, train_N),
    )


def length_facts(interactions: Interactions) -> Lengths:
    shortest, first, median, third, longest = np.percentile(interactions.lengths, [0, 25, 50, 75, 100]).tolist()
    return Lengths(int(shortest), first, median, float(interactions.lengths.mean()), third, int(longest))


def evaluation_facts(interactions: Interactions, train_N: NDArray[np.bool_]) -> EvaluationFacts:
    trained_I = np.zeros(interactions.num_items + 1, dtype=bool)
    trained_I[interactions.items[train_N]] = True
    users_E = interactions.evaluated_users

    def unreachable(held_out: int) -> Part:
        return part(target_in_history(interactions, held_out).sum(), len(users_E))

    def cold(held_out: int) -> Part:
        targets_E = interactions.items[interactions.offsets[users_E + 1] - held_out]
        return part((~trained_I[targets_E]).sum(), len(users_E))

    return EvaluationFacts(
        too_short=part(interactions.num_users - len(users_E), interactions.num_users),
        repeats=part(count_repeats(interactions), interactions.num_interactions),
        unreachable_test=unreachable(TEST),
        unreachable_validation=unreachable(VALIDATION),
        cold_test=cold(TEST),
        cold_validation=cold(VALIDATION),
    )


def count_repeats(interactions: Interactions) -> int:
    """Interactions whose user had the same item before."""
    users_N = np.repeat(np.arange(interactions.num_users), interactions.lengths)
    pairs_N = users_N * (interactions.num_items + 1) + interactions.items
    pairs_N.sort()
    return int((pairs_N[1:] == pairs_N[:-1]).sum())


def target_in_history(interactions: Interactions, held_out: int) -> NDArray[np.bool_]:
    """Whether an evaluated user's target occurs before itself, `[E]`."""
    ends_E = interactions.offsets[interactions.evaluated_users + 1]
    targets_U = np.full(interactions.num_users, PADDING, dtype=interactions.items.dtype)
    targets_U[interactions.evaluated_users] = interactions.items[ends_E - held_out]
    same_N = interactions.items == np.repeat(targets_U, interactions.lengths)
    for place in range(1, held_out + 1):
        same_N[ends_E - place] = False
    return np.logical_or.reduceat(same_N, interactions.offsets[:-1])[interactions.evaluated_users]


def truncation_facts(interactions: Interactions, prefixes: Prefixes, max_len: int) -> TruncationFacts:
    inputs_E = interactions.lengths[interactions.evaluated_users] - TEST
    cut = prefixes.starts > interactions.offsets[prefixes.users]
    old_U = np.maximum(interactions.train_lengths - max_len, 0)
    return TruncationFacts(
        max_len=max_len,
        long_test_inputs=part((inputs_E > max_len).sum(), len(inputs_E)),
        cut_test_items=part(np.maximum(inputs_E - max_len, 0).sum(), inputs_E.sum()),
        cut_targets=part(cut.sum(), len(prefixes)),
        old_interactions=part(old_U.sum(), interactions.train_lengths.sum()),
    )


def popularity_facts(interactions: Interactions) -> PopularityFacts:
    counts_I = np.sort(np.bincount(interactions.items, minlength=interactions.num_items + 1)[1:])[::-1]

    def top(percent: int) -> Part:
        return part(counts_I[: -(-len(counts_I) * percent // 100)].sum(), counts_I.sum())

    return PopularityFacts(top(1), top(10))
