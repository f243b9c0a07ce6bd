"""Which task each optimizer step trains, and with which users: POD's tasks take turns (lileipisces/POD fd31697).

Seed and step alone decide, so that every rank and every resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tslrec.data.batching import RandomBatches

ORDER_STREAM = 12
"""Number of the random stream that orders the users of a pass."""


class Turn(NamedTuple):
    """An optimizer step.

    Attributes:
        task: one of `TASKS`.
        number: steps before it in the whole training; with the seed, it determines what is drawn for the step.
        users: rows of the users in the data set, over all ranks.
    """

    task: int
    number: int
    users: NDArray[np.int64]


class Rotation(RandomBatches):
    """Endless steps: tasks in turn, whatever their sizes, each walking through its own users again and again.

    Args:
        users: by task, in the order of their turns, the rows of the users that it trains on; one or more.
        batch_size: users of a step, over all ranks; the last step of a pass may have fewer.
        seed: with the number of the pass, it determines the order.
        steps_per_epoch: steps of an epoch; None: as many full batches as one pass of every task has, one at least.
        shuffle_first: False: the first pass is in the given order, as in the public code.

    Attributes:
        position: steps that were given out.
        step: those of the current epoch.
    """

    def __init__(
        self,
        users: Mapping[int, NDArray[np.int64]],
        batch_size: int,
        seed: int,
        *,
        steps_per_epoch: int | None = None,
        shuffle_first: bool = True,
    ) -> None:
        full = sum(len(each) // batch_size for each in users.values())
        super().__init__(sum(map(len, users.values())), batch_size, seed, steps_per_epoch or max(1, full))
        self.users = users
        self.shuffle_first = shuffle_first

    def __iter__(self) -> Iterator[Turn]:  # type: ignore[override]
        for step in range(self.step, len(self)):
            turn = self.turn(self.position)
            # Advance before the batch is given out; see `RandomBatches`.
            self.step = (step + 1) % len(self)
            self.position += 1
            yield turn

    def turn(self, number: int) -> Turn:
        """The step with a number, from 0."""
        tasks = list(self.users)
        task, own = tasks[number % len(tasks)], number // len(tasks)
        users = self.users[task]
        each_pass, place = divmod(own, -(-len(users) // self.batch_size))
        begin = place * self.batch_size
        return Turn(task, number, self.in_order(task, each_pass)[begin : begin + self.batch_size])

    def in_order(self, task: int, each_pass: int) -> NDArray[np.int64]:
        """A task's users in the order of one of its passes."""
        users = self.users[task]
        if each_pass == 0 and not self.shuffle_first:
            return users
        return np.random.default_rng([self.seed, ORDER_STREAM, task, each_pass]).permutation(users)
