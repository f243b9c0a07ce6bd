"""Counts properties of a data set that limit or bias what is measured on it: repeats, cold targets, truncation, leaks.

The split is leave-one-out (`Interactions.train_lengths`). A target's history is all items of its user before it. Shares
of users are shares of the evaluated users, unless stated otherwise. Time and memory grow linearly with the number of
interactions.

Shapes: N interactions, U users, E evaluated users, I items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.data.audit_times import TimeFacts, time_facts
from tslrec.data.formats.base import Reading
from tslrec.data.interactions import PADDING, TEST, VALIDATION, Interactions
from tslrec.data.item_titles import TitleCounts
from tslrec.data.statistics import Fraction, fraction, table1_row
from tslrec.data.windows import Prefixes, all_prefixes


@dataclass(frozen=True)
class Lengths:
    """Distribution of the number of interactions per user; quartiles are interpolated linearly."""

    shortest: int
    first_quartile: float
    median: float
    mean: float
    third_quartile: float
    longest: int


@dataclass(frozen=True)
class EvaluationFacts:
    """Users and targets that limit what leave-one-out can measure.

    Attributes:
        too_short: users with fewer than 3 interactions, of all users: they are trained on, but not evaluated.
        repeats: interactions with an item that the same user had before, of all interactions.
        unreachable_test: users whose test target is in its own history. Masking the history excludes it from the
            candidates, so the largest possible hit rate is 1 minus this share.
        unreachable_validation: the same for the validation target.
        cold_test: users whose test target occurs in no user's training part.
        cold_validation: the same for the validation target.
    """

    too_short: Fraction
    repeats: Fraction
    unreachable_test: Fraction
    unreachable_validation: Fraction
    cold_test: Fraction
    cold_validation: Fraction


@dataclass(frozen=True)
class TrainingFacts:
    """Numbers of training instances.

    Attributes:
        interactions: interactions in training parts, of all interactions.
        prefixes: number of prefixes of length 1 or more of the training parts, each with the item after it as target.
        recent_positions: number of instances by E4SRec's rule: each of the last `max_len` positions of a training part
            is a target, including the part's first position, which has an empty history.
    """

    interactions: Fraction
    prefixes: int
    recent_positions: int


@dataclass(frozen=True)
class TruncationFacts:
    """What a model does not see because its input is a history's last `max_len` items.

    Attributes:
        max_len: length of the input, in items.
        long_test_inputs: users whose test input is longer than `max_len`.
        cut_test_items: items of test inputs that are cut off, of all items of test inputs.
        cut_targets: training prefixes that lose a part of their history, of all prefixes. Where
            `training.all_positions` trains windows instead, a target sees at least half of `max_len` items
            (`all_windows`).
        old_interactions: training interactions before the last `max_len` of their user's training part, of all training
            interactions. E4SRec's rule and the language model's training example leave them out.
    """

    max_len: int
    long_test_inputs: Fraction
    cut_test_items: Fraction
    cut_targets: Fraction
    old_interactions: Fraction


@dataclass(frozen=True)
class PopularityFacts:
    """Share of all interactions, including validation and test, that the most popular items have.

    Attributes:
        top_1_percent: interactions with the most popular 1 % of the items (rounded up to a whole item).
        top_10_percent: the same for the most popular 10 %.
    """

    top_1_percent: Fraction
    top_10_percent: Fraction


@dataclass(frozen=True)
class Audit:
    """All facts about a data set.

    Attributes:
        table1: the data set's row of the paper's Table 1 (`table1_row`).
        duplicates: rows with the user, item and timestamp of an earlier row, of all rows before any filter. None
            without timestamps, since a duplicate then cannot be told from a repeated interaction. All other counts
            include the duplicates.
        lengths: interactions per user.
        evaluation: limits of leave-one-out.
        training: numbers of training instances.
        truncation: what `max_len` cuts off.
        popularity: share of the most popular items.
        times: ties and leakage by timestamps; None without timestamps.
        rows: what became of the source's rows; None if the caller does not know.
        titles: how the file of titles fits; None without one.
    """

    table1: dict[str, float]
    duplicates: Fraction | None
    lengths: Lengths
    evaluation: EvaluationFacts
    training: TrainingFacts
    truncation: TruncationFacts
    popularity: PopularityFacts
    times: TimeFacts | None
    rows: RowFacts | None = None
    titles: TitleCounts | None = None


@dataclass(frozen=True)
class RowFacts:
    """What became of the lines and rows of the source.

    Attributes:
        read: interactions before the k-core filter, duplicates included unless they were dropped.
        reading: what the reader dropped, what it noticed, and what the timestamps say.
        filtered: interactions that the k-core filter dropped, of those that were read.
    """

    read: int
    reading: Reading
    filtered: Fraction


def audit(
    interactions: Interactions,
    max_len: int,
    duplicates: Fraction | None = None,
    rows: RowFacts | None = None,
    titles: TitleCounts | None = None,
) -> Audit:
    """Computes all facts.

    Args:
        interactions: the data set; at least one of its users is evaluated.
        max_len: length of a backbone's input, in items.
        duplicates: see `Audit`; counted by the caller on the raw rows, which `interactions` no longer has.
        rows: see `Audit`; likewise.
        titles: see `Audit`.
    """
    train_N = interactions.is_training_N
    prefixes = all_prefixes(interactions, max_len)
    return Audit(
        table1=table1_row(interactions),
        duplicates=duplicates,
        lengths=length_facts(interactions),
        evaluation=evaluation_facts(interactions, train_N),
        training=TrainingFacts(
            interactions=fraction(train_N.sum(), interactions.num_interactions),
            prefixes=len(prefixes),
            recent_positions=int(np.minimum(interactions.train_lengths, max_len).sum()),
        ),
        truncation=truncation_facts(interactions, prefixes, max_len),
        popularity=popularity_facts(interactions),
        times=time_facts(interactions, train_N),
        rows=rows,
        titles=titles,
    )


def length_facts(interactions: Interactions) -> Lengths:
    """Computes `Lengths`."""
    shortest, first, median, third, longest = np.percentile(interactions.lengths, [0, 25, 50, 75, 100]).tolist()
    return Lengths(int(shortest), first, median, float(interactions.lengths.mean()), third, int(longest))


def evaluation_facts(interactions: Interactions, train_N: NDArray[np.bool_]) -> EvaluationFacts:
    """Computes `EvaluationFacts`.

    Args:
        interactions: at least one user is evaluated.
        train_N: whether each interaction belongs to a training part.
    """
    trained_I = np.zeros(interactions.num_items + 1, dtype=bool)
    trained_I[interactions.items[train_N]] = True
    users_E = interactions.evaluated_users

    def unreachable(held_out: int) -> Fraction:
        return fraction(target_in_history(interactions, held_out).sum(), len(users_E))

    def cold(held_out: int) -> Fraction:
        targets_E = interactions.items[interactions.offsets[users_E + 1] - held_out]
        return fraction((~trained_I[targets_E]).sum(), len(users_E))

    return EvaluationFacts(
        too_short=fraction(interactions.num_users - len(users_E), interactions.num_users),
        repeats=fraction(count_repeats(interactions), interactions.num_interactions),
        unreachable_test=unreachable(TEST),
        unreachable_validation=unreachable(VALIDATION),
        cold_test=cold(TEST),
        cold_validation=cold(VALIDATION),
    )


def count_repeats(interactions: Interactions) -> int:
    """Number of interactions with an item that the same user had before."""
    users_N = np.repeat(np.arange(interactions.num_users), interactions.lengths)
    pairs_N = users_N * (interactions.num_items + 1) + interactions.items
    pairs_N.sort()
    return int((pairs_N[1:] == pairs_N[:-1]).sum())


def target_in_history(interactions: Interactions, held_out: int) -> NDArray[np.bool_]:
    """Whether each evaluated user's target also occurs in its own history, `[E]`.

    Args:
        interactions: the data set.
        held_out: the target's position from the end, `TEST` or `VALIDATION`.
    """
    ends_E = interactions.offsets[interactions.evaluated_users + 1]
    targets_U = np.full(interactions.num_users, PADDING, dtype=interactions.items.dtype)
    targets_U[interactions.evaluated_users] = interactions.items[ends_E - held_out]
    same_N = interactions.items == np.repeat(targets_U, interactions.lengths)
    # The target itself and the items after it are no part of its history.
    for from_end in range(1, held_out + 1):
        same_N[ends_E - from_end] = False
    return np.logical_or.reduceat(same_N, interactions.offsets[:-1])[interactions.evaluated_users]


def truncation_facts(interactions: Interactions, prefixes: Prefixes, max_len: int) -> TruncationFacts:
    """Computes `TruncationFacts`; `prefixes` are those of `all_prefixes(interactions, max_len)`."""
    inputs_E = interactions.lengths[interactions.evaluated_users] - TEST
    cut = prefixes.starts > interactions.offsets[prefixes.users]
    old_U = np.maximum(interactions.train_lengths - max_len, 0)
    return TruncationFacts(
        max_len=max_len,
        long_test_inputs=fraction((inputs_E > max_len).sum(), len(inputs_E)),
        cut_test_items=fraction(np.maximum(inputs_E - max_len, 0).sum(), inputs_E.sum()),
        cut_targets=fraction(cut.sum(), len(prefixes)),
        old_interactions=fraction(old_U.sum(), interactions.train_lengths.sum()),
    )


def popularity_facts(interactions: Interactions) -> PopularityFacts:
    """Computes `PopularityFacts`."""
    counts_I = np.sort(np.bincount(interactions.items, minlength=interactions.num_items + 1)[1:])[::-1]

    def top(percent: int) -> Fraction:
        return fraction(counts_I[: -(-len(counts_I) * percent // 100)].sum(), counts_I.sum())

    return PopularityFacts(top(1), top(10))
