"""One example per user: the last items of the training part, and the preference over it (paper, Section 4.1).

Shapes: B users of a batch, U users, K clusters, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.interactions import Interactions
from tslrec.llm.packing import PackedExamples, Packer
from tslrec.sampling import RandomBatches, own_share
from tslrec.sequences import Batches


class PreferenceBatch(NamedTuple):
    """The users of one optimizer step that this process runs.

    Attributes:
        examples: their histories.
        targets_BK: float32, the normalised interaction frequency vectors.
        counted: whether they count; where a step has fewer users than there are processes, one is run twice.
        num_users: of the step, over all processes.
    """

    examples: PackedExamples
    targets_BK: Tensor
    counted: bool
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
        self.seed = seed
        self.batches = Batches(RandomBatches(len(self.histories), batch_size, seed), self.collate)

    def train_dataloader(self) -> Batches[PreferenceBatch]:
        return self.batches

    def collate(self, users_B: NDArray[np.int64]) -> PreferenceBatch:
        """This process's share of one step."""
        mine_B, counted = own_share(users_B)
        examples = self.packer([self.histories[user] for user in mine_B])
        return PreferenceBatch(examples, torch.from_numpy(self.targets_UK[mine_B]), counted, len(users_B))

    def sample(self, num_users: int) -> PackedExamples:
        """Some users, drawn at random, the same in every process."""
        users = np.random.default_rng(self.seed).permutation(len(self.histories))[:num_users]
        return self.packer([self.histories[user] for user in users])


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
