"""Which instances share an optimizer step, which rank runs them, and which users are held back from training.

Seed and epoch alone decide, so that every rank and every resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tslrec.data.prefetching import Prefetcher
from tslrec.system.errors import UserError
from tslrec.system.processes import rank_and_world_size

T = TypeVar("T")

HELD_BACK_STREAM, SHARE_STREAM = 1, 2
"""Numbers of the random streams that draw held-back users and a share of instances, apart from the shuffling."""


class RandomBatches:
    """Endless batches of instance indices: each pass over the data visits every instance once, in a new random order.

    Batches are drawn regardless of the instances' lengths. All ranks draw the same batches; `rank_share` gives a
    rank's part of one.

    Args:
        num_instances: number of instances.
        batch_size: instances per batch, over all ranks.
        seed: with the number of the pass, it determines the order.
        steps_per_epoch: batches per iteration; the next iteration continues where this one stopped. None: an iteration
            is a whole pass over the data.

    Attributes:
        epoch: completed passes over the data.
        position: batches of the current pass that were given out.
        step: batches of the current iteration that were given out.
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
        """Batches in one pass over the data; the last one may be smaller."""
        return -(-self.num_instances // self.batch_size)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        order = self.order()
        for step in range(self.step, len(self)):
            batch = order[self.position * self.batch_size : (self.position + 1) * self.batch_size]
            # Advance before the batch is given out: a caller that knows the number of batches never asks for one
            # more, so code after the last `yield` would not run.
            self.step = (step + 1) % len(self)
            self.position += 1
            if self.position == self.batches_per_pass:
                self.epoch, self.position = self.epoch + 1, 0
                if self.step > 0:
                    order = self.order()
            yield batch

    def order(self) -> NDArray[np.int64]:
        """All instances in the order of the current pass."""
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.num_instances)

    def state_dict(self) -> dict[str, Any]:
        """The position of the next batch, for a checkpoint."""
        return {"seed": self.seed, "epoch": self.epoch, "position": self.position, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues at the position that another object's `state_dict` gives.

        Raises:
            ValueError: if that one had another seed.
        """
        if state["seed"] != self.seed:
            raise ValueError(f"the state has seed {state['seed']}, these batches have seed {self.seed}")
        self.epoch, self.position, self.step = state["epoch"], state["position"], state["step"]


class Batches(Generic[T]):
    """The data loader that Lightning iterates over: each batch of indices becomes tensors when it is asked for.

    With `prefetch`, a background thread makes the tensors of the next batches, while the device computes. The batches
    and their order are the same, and `state_dict` still gives the position of the batch that is delivered next.

    Args:
        indices: the batches of instance indices.
        collate: makes the tensors of one batch. It draws from no global random state.
    """

    def __init__(self, indices: Sequence[NDArray[np.int64]] | RandomBatches, collate: Callable[..., T]) -> None:
        self.indices = indices
        self.collate = collate
        self.ahead = 0
        self.prepare: Callable[[T], T] | None = None
        self.running: Prefetcher[tuple[T, dict[str, Any]]] | None = None
        self.delivered: dict[str, Any] | None = None
        """The state after the batch that was delivered last, where the thread may be further."""

    def __len__(self) -> int:
        return len(self.indices)

    def prefetch(self, ahead: int, prepare: Callable[[T], T] | None = None) -> None:
        """Sets how later iterations are prepared; one that runs goes on as it began.

        Args:
            ahead: batches that are made before they are asked for; 0: none, and no thread.
            prepare: done with each batch in the background, such as pinning its memory.
        """
        self.ahead, self.prepare = ahead, prepare

    def __iter__(self) -> Iterator[T]:
        # A generator: Lightning makes its iterators before the hook in which `prefetch` is called.
        self.close()
        if self.ahead == 0:
            yield from self.made(self.indices)
            return
        self.delivered = self.state_of_indices()
        running = self.running = Prefetcher(self.made_with_states(self.prepare), self.ahead)
        try:
            for batch, state in running:
                self.delivered = state
                yield batch
        finally:
            running.close()

    def made(self, indices: Iterable[NDArray[np.int64]]) -> Iterator[T]:
        """The tensors of each batch."""
        for batch in indices:
            yield self.collate(batch)

    def made_with_states(self, prepare: Callable[[T], T] | None) -> Iterator[tuple[T, dict[str, Any]]]:
        """Each batch, prepared, and the state once it is delivered."""
        for batch in self.indices:
            made, state = self.collate(batch), self.state_of_indices()
            yield (made if prepare is None else prepare(made)), state

    def close(self) -> None:
        """Ends the background thread, if one runs; the next iteration continues after the batch delivered last."""
        if self.running is not None:
            self.running.close()
            self.running = None
        if self.delivered is not None:
            state, self.delivered = self.delivered, None
            self.load_state_dict(state)

    def state_of_indices(self) -> dict[str, Any]:
        """The state of `RandomBatches`; empty for a fixed list of batches."""
        return self.indices.state_dict() if isinstance(self.indices, RandomBatches) else {}

    def state_dict(self) -> dict[str, Any]:
        """The position of the next batch, for a checkpoint; empty for a fixed list of batches."""
        return self.state_of_indices() if self.delivered is None else self.delivered

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave."""
        if self.running is not None:
            self.running.close()
            self.running = None
        self.delivered = None
        if isinstance(self.indices, RandomBatches):
            self.indices.load_state_dict(state)


def rank_share(batch: NDArray[np.int64]) -> tuple[NDArray[np.int64], bool]:
    """This rank's part of a batch, and whether its targets count towards the loss.

    Every rank takes part in every step, since the others wait for its gradient. Where a batch has fewer instances than
    there are ranks, a rank without an instance of its own runs a duplicate of the first one, which does not count.
    """
    rank, world_size = rank_and_world_size()
    if rank < len(batch):
        return batch[rank::world_size], True
    return batch[:1], False


def split_users(num_users: int, held_back: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draws users that are held back from training.

    Args:
        num_users: number of users.
        held_back: share of them that is held back. If it is above 0, at least one user is held back, and at least one
            is trained on.
        seed: determines the draw.

    Returns:
        The users that are trained on, and the users that are held back, both ascending.

    Raises:
        UserError: if there is only one user.
    """
    users = np.arange(num_users)
    if held_back == 0:
        return users, users[:0]
    if num_users < 2:
        raise UserError("sft.held_back: the data set has only one user, who must be trained on; set it to 0")
    count = min(max(1, round(held_back * num_users)), num_users - 1)
    chosen = np.random.default_rng([seed, HELD_BACK_STREAM]).choice(num_users, count, replace=False)
    is_held_back = np.isin(users, chosen)
    return users[~is_held_back], users[is_held_back]


def drawn_share(count: int, share: float, seed: int) -> NDArray[np.int64]:
    """Draws a share of `count` instances, at least one where there is one.

    Args:
        count: number of instances.
        share: above 0, at most 1; 1 gives all.
        seed: determines the draw.

    Returns:
        Indices of instances, ascending.
    """
    if share == 1 or count == 0:
        return np.arange(count)
    draw = np.random.default_rng([seed, SHARE_STREAM])
    return np.sort(draw.choice(count, max(1, round(share * count)), replace=False))
