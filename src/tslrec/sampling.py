"""Who is trained on, and which instances share an optimizer step: decided by seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tslrec.errors import UserError
from tslrec.ranks import process_place

HELD_BACK = 1
"""Beside the seed, for draws that are independent of the order of training."""


class RandomBatches:
    """Every instance once, then all of them in a new order, and so on; lengths have no say in who shares a batch.

    All processes of a job draw the same batches; `own_share` says which part of one is whose.

    Args:
        num_instances: how many there are.
        batch_size: of all processes together.
        seed: decides the order, with the number of the pass over the data.
        steps_per_epoch: batches after which an iteration ends, the next going on behind them; a whole pass by default.

    Attributes:
        epoch: passes over the data that are done.
        position: batches of the present pass that are done.
        step: batches of the present iteration that are done.
    """

    def __init__(self, num_instances: int, batch_size: int, seed: int, steps_per_epoch: int | None = None) -> None:
        self.num_instances = num_instances
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self.step = 0
        self.steps_per_epoch = steps_per_epoch

    def __len__(self) -> int:
        return self.steps_per_epoch or self.batches_per_pass

    @property
    def batches_per_pass(self) -> int:
        return -(-self.num_instances // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        order = self.order()
        for step in range(self.step, len(self)):
            batch = order[self.position * self.batch_size : (self.position + 1) * self.batch_size]
            # Moved on before the batch is handed out: who knows how many there are never asks for one more, so
            # nothing after the last `yield` would run.
            self.step = (step + 1) % len(self)
            self.position += 1
            if self.position == self.batches_per_pass:
                self.epoch, self.position = self.epoch + 1, 0
                if self.step > 0:
                    order = self.order()
            yield batch

    def order(self) -> NDArray[np.int64]:
        """The instances in the order of the present pass."""
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.num_instances)

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch comes from."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where another run of the same seed was.

        Raises:
            ValueError: if it was another seed.
        """
        if state["seed"] != self.seed:
            raise ValueError(f"the state is of seed {state['seed']}, not {self.seed}")
        self.epoch, self.position, self.step = state["epoch"], state["position"], state["step"]


def own_share(batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """This process's share of a batch, and whether its targets count.

    Every process takes part in every step, since the others wait for its gradient. So where a batch has fewer instances
    than there are processes, those left over run one that another process has, without counting it.
    """
    rank, world_size = process_place()
    if rank < len(batch):
        return batch[rank::world_size], True
    return batch[:1], False


def split_users(num_users: int, held_back: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draws the users that are held back.

    Args:
        num_users: how many there are.
        held_back: their share; above 0 it is one user at least, and one at least is trained on.
        seed: decides who.

    Returns:
        The users that are trained on and those that are held back, both ascending.

    Raises:
        UserError: if there is one user only.
    """
    everybody = np.arange(num_users)
    if held_back == 0:
        return everybody, everybody[:0]
    if num_users < 2:
        raise UserError("sft.held_back: there is one user only, who cannot be held back; set it to 0")
    count = min(max(1, round(held_back * num_users)), num_users - 1)
    chosen = np.random.default_rng([seed, HELD_BACK]).choice(num_users, count, replace=False)
    is_held_back = np.isin(everybody, chosen)
    return everybody[~is_held_back], everybody[is_held_back]
