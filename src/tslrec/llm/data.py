"""One example per user: the last items of the training part, and the preference over it (paper, Section 4.1).

Shapes: B users of a batch, U users, K clusters, I items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tslrec.interactions import Interactions
from tslrec.llm.packing import PackedExamples, Packer


class PreferenceBatch(NamedTuple):
    """The users of one optimizer step that this process runs.

    Attributes:
        examples: their histories.
        targets_BK: float32, the normalised interaction frequency vectors.
        num_users: of the step, over all processes.
    """

    examples: PackedExamples
    targets_BK: Tensor
    num_users: int


class PreferenceDataModule(lightning.LightningDataModule):
    """Random batches of users; each epoch visits every user once, in an order given by the seed and the epoch.

    In a distributed run all processes draw the same batches and each takes its share of every one.

    Args:
        interactions: the data set.
        targets_UK: float32, what to reconstruct.
        packer: the model's.
        max_len: the last items of a user's training part that are shown.
        batch_size: users of one step, over all processes.
        seed: decides the order.
    """

    def __init__(
        self,
        interactions: Interactions,
        targets_UK: NDArray[np.float32],
        packer: Packer,
        *,
        max_len: int,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.histories = training_histories(interactions, max_len)
        self.targets_UK = targets_UK
        self.packer = packer
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader[PreferenceBatch]:
        return DataLoader(PreferenceBatches(self, self.rank, self.world_size), batch_size=None)

    def sample(self, num_users: int) -> PackedExamples:
        """Some users, drawn at random, the same in every process."""
        users = np.random.default_rng(self.seed).permutation(len(self.histories))[:num_users]
        return self.packer([self.histories[user] for user in users])

    @property
    def rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    @property
    def epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0


class PreferenceBatches(IterableDataset[PreferenceBatch]):
    """The batches of an epoch."""

    def __init__(self, data: PreferenceDataModule, rank: int, world_size: int) -> None:
        self.data = data
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return len(self._splits()) + 1

    def __iter__(self) -> Iterator[PreferenceBatch]:
        data = self.data
        order = np.random.default_rng([data.seed, data.epoch]).permutation(len(data.histories))
        for users in np.split(order, self._splits()):
            mine_B = users[self.rank :: self.world_size]
            examples = data.packer([data.histories[user] for user in mine_B])
            yield PreferenceBatch(examples, torch.from_numpy(data.targets_UK[mine_B]), len(users))

    def _splits(self) -> list[int]:
        """Where batches begin, the first not counted; a last batch too small for all processes joins its neighbour."""
        num_users = len(self.data.histories)
        splits = list(range(self.data.batch_size, num_users, self.data.batch_size))
        if splits and num_users - splits[-1] < self.world_size:
            splits.pop()
        return splits


def training_histories(interactions: Interactions, max_len: int) -> list[NDArray[np.int64]]:
    """Each user's last `max_len` items of the training part, in time order."""
    ends_U = interactions.offsets[:-1] + interactions.train_lengths
    starts_U = ends_U - np.minimum(interactions.train_lengths, max_len)
    items = interactions.items.astype(np.int64)
    return [items[start:end] for start, end in zip(starts_U, ends_U, strict=True)]


def window_preferences(
    histories: Sequence[NDArray[np.int64]], clusters_I: NDArray[np.int64], num_clusters: int
) -> NDArray[np.float32]:
    """The preference over the shown items only, `[U, K]`, rows summing to 1."""
    counts_UK = np.stack([np.bincount(clusters_I[items], minlength=num_clusters) for items in histories])
    return (counts_UK / counts_UK.sum(axis=1, keepdims=True)).astype(np.float32)
