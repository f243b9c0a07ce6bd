"""Random batches with a state: which instances share an optimizer step, decided by seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tslrec.ranks import process_place


class RandomBatches:
    """Each epoch visits every instance once, in a new order; lengths have no say in who shares a batch.

    All processes of a job draw the same batches; `own_share` says which part of one is whose.

    Args:
        num_instances: how many there are.
        batch_size: of all processes together.
        seed: decides the order, with the epoch.
    """

    def __init__(self, num_instances: int, batch_size: int, seed: int) -> None:
        self.num_instances = num_instances
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        return -(-self.num_instances // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_instances)
        for position in range(self.position, len(self)):
            # Moved on before the batch is handed out: who knows how many there are never asks for one more, so
            # nothing after the last `yield` would run.
            last = position + 1 == len(self)
            self.epoch, self.position = (self.epoch + 1, 0) if last else (self.epoch, position + 1)
            yield order[position * self.batch_size : (position + 1) * self.batch_size]

    def state_dict(self) -> dict[str, Any]:
        """Where the next batch comes from."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where another run of the same seed was.

        Raises:
            ValueError: if it was another seed.
        """
        if state["seed"] != self.seed:
            raise ValueError(f"the state is of seed {state['seed']}, not {self.seed}")
        self.epoch, self.position = state["epoch"], state["position"]


def own_share(batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """This process's share of a batch, and whether its targets count.

    Every process takes part in every step, since the others wait for its gradient. So where a batch has fewer instances
    than there are processes, those left over run one that another process has, without counting it.
    """
    rank, world_size = process_place()
    if rank < len(batch):
        return batch[rank::world_size], True
    return batch[:1], False
