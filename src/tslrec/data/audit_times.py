"""Counts what a split that ignores timestamps causes: ties, and training on interactions later than the test.

Leave-one-out holds out each user's own last items, whenever they happened. A model is therefore trained on other users'
interactions that are later than a user's test item, and learns trends and items that were unknown at that time.

Shapes: N interactions, E evaluated users, I items, T training interactions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tslrec.data.interactions import Interactions
from tslrec.data.statistics import Fraction, fraction


@dataclass(frozen=True)
class TimeFacts:
    """Ties and leakage. Shares of users are shares of the evaluated users; a user's test time is that of the test item.

    Attributes:
        tied: interactions with the same timestamp as the same user's interaction before or after them, of all
            interactions.
        tied_test: users whose test and validation item have the same timestamp: file order decides which is which.
        tied_validation: users whose validation item and last training item have the same timestamp.
        users_before_training_ends: users whose test time is before the latest training interaction, which is another
            user's, since a user's own training interactions are not later than the test.
        users_target_trained_later: users whose test target occurs in another user's training part after the test time.
        mean_future_share: share of all training interactions that are later than a user's test time, averaged over
            users; from 0 to 1.
    """

    tied: Fraction
    tied_test: Fraction
    tied_validation: Fraction
    users_before_training_ends: Fraction
    users_target_trained_later: Fraction
    mean_future_share: float


def time_facts(interactions: Interactions, train_N: NDArray[np.bool_]) -> TimeFacts | None:
    """Computes `TimeFacts`; None for a data set without timestamps.

    Args:
        interactions: the data set; at least one of its users is evaluated.
        train_N: whether each interaction belongs to a training part.
    """
    times_N = interactions.timestamps
    if times_N is None:
        return None
    ends_E = interactions.offsets[interactions.evaluated_users + 1]
    tests_E = times_N[ends_E - 1]
    train_T = np.sort(times_N[train_N])
    later_E = len(train_T) - np.searchsorted(train_T, tests_E, side="right")
    last_I = last_training_times(interactions, times_N, train_N)
    return TimeFacts(
        tied=fraction(tied_with_neighbour(interactions, times_N).sum(), len(times_N)),
        tied_test=fraction((tests_E == times_N[ends_E - 2]).sum(), len(ends_E)),
        tied_validation=fraction((times_N[ends_E - 2] == times_N[ends_E - 3]).sum(), len(ends_E)),
        users_before_training_ends=fraction((later_E > 0).sum(), len(ends_E)),
        users_target_trained_later=fraction((last_I[interactions.items[ends_E - 1]] > tests_E).sum(), len(ends_E)),
        mean_future_share=float(later_E.mean() / len(train_T)),
    )


def tied_with_neighbour(interactions: Interactions, times_N: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each interaction has the same timestamp as the one before or after it in the history, bool `[N]`."""
    tied_before_N = np.zeros(len(times_N), dtype=bool)
    tied_before_N[1:] = times_N[1:] == times_N[:-1]
    tied_before_N[interactions.offsets[:-1]] = False
    tied_N = tied_before_N.copy()
    tied_N[:-1] |= tied_before_N[1:]
    return tied_N


def last_training_times(interactions: Interactions, times_N: NDArray[Any], train_N: NDArray[np.bool_]) -> NDArray[Any]:
    """Time of each item's last occurrence in any training part, `[I + 1]`.

    An item that occurs in none has the earliest timestamp of the data set.
    """
    last_I = np.full(interactions.num_items + 1, times_N.min())
    np.maximum.at(last_I, interactions.items[train_N], times_N[train_N])
    return last_I
