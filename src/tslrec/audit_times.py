"""What timestamps say of a split that ignores them: ties, and training on other users' future.

Leave-one-out holds out each user's own last items, whenever they happened. So a model is trained on interactions that
are later than the moment at which it is tested: on trends, and on items, that nobody knew of by then.

Shapes: N interactions, E evaluated users, I items, T training interactions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tslrec.interactions import Interactions
from tslrec.part import Part, part


@dataclass(frozen=True)
class TimeFacts:
    """Shares of users are of the evaluated ones; a user's test time is the timestamp of the test item.

    Attributes:
        tied: interactions with the timestamp of the interaction before or after them of the same user.
        tied_test: users whose test and validation item have one timestamp: file order decides which is which.
        tied_validation: users whose validation item and last training item have one timestamp.
        users_before_training_ends: users whose test time is before the latest training interaction. Their own are not
            later, so it is another user's.
        users_target_trained_later: users whose test target occurs in another user's training part after the test time.
        mean_future_share: share of all training interactions that are later than a user's test time, mean over users.
    """

    tied: Part
    tied_test: Part
    tied_validation: Part
    users_before_training_ends: Part
    users_target_trained_later: Part
    mean_future_share: float


def time_facts(interactions: Interactions, train_N: NDArray[np.bool_]) -> TimeFacts | None:
    """Counts ties and what is later than the test; None where there are no timestamps.

    Args:
        interactions: at least one user evaluated.
        train_N: which interactions belong to a training part.
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
        tied=part(tied_with_neighbour(interactions, times_N).sum(), len(times_N)),
        tied_test=part((tests_E == times_N[ends_E - 2]).sum(), len(ends_E)),
        tied_validation=part((times_N[ends_E - 2] == times_N[ends_E - 3]).sum(), len(ends_E)),
        users_before_training_ends=part((later_E > 0).sum(), len(ends_E)),
        users_target_trained_later=part((last_I[interactions.items[ends_E - 1]] > tests_E).sum(), len(ends_E)),
        mean_future_share=float(later_E.mean() / len(train_T)),
    )


def tied_with_neighbour(interactions: Interactions, times_N: NDArray[Any]) -> NDArray[np.bool_]:
    """Which interactions have the timestamp of one next to them in the same history, `[N]`."""
    as_before_N = np.zeros(len(times_N), dtype=bool)
    as_before_N[1:] = times_N[1:] == times_N[:-1]
    as_before_N[interactions.offsets[:-1]] = False
    tied_N = as_before_N.copy()
    tied_N[:-1] |= as_before_N[1:]
    return tied_N


def last_training_times(interactions: Interactions, times_N: NDArray[Any], train_N: NDArray[np.bool_]) -> NDArray[Any]:
    """When each item occurs last in any training part, `[I + 1]`; the earliest time of all where it never does."""
    last_I = np.full(interactions.num_items + 1, times_N.min())
    np.maximum.at(last_I, interactions.items[train_N], times_N[train_N])
    return last_I
