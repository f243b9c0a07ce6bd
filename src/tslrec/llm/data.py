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
from tslrec.sampling import RandomBatches, own_share, split_users
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
    """Random batches of users; each pass visits every user once, in an order given by the seed and the pass.

    In a distributed run all processes draw the same batches and each takes its share of every one. Users that are held
    back are drawn once, by the seed, never trained on, and what a validation is of.

    Args:
        interactions: the data set.
        targets_UK: float32, what to reconstruct.
        packer: the model's.
        max_len: the last items of a user's training part that are shown.
        batch_size: users of one step, over all processes.
        seed: decides the order, and who is held back.
        held_back: share of the users that are.
        eval_batch_size: users of one batch of a validation, over all processes.
        steps_per_epoch: see `RandomBatches`.

    Attributes:
        trained: the users that are trained on, ascending.
        held_back: the others, by the length of what is shown of them.
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
        held_back: float = 0.0,
        eval_batch_size: int = 128,
        steps_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        self.histories = training_histories(interactions, max_len)
        self.targets_UK = targets_UK
        self.packer = packer
        self.seed = seed
        self.trained, held_back_H = split_users(len(self.histories), held_back, seed)
        lengths_H = np.array([len(self.histories[user]) for user in held_back_H])
        self.held_back = held_back_H[np.argsort(lengths_H, kind="stable")]
        self.eval_batch_size = eval_batch_size
        batches = RandomBatches(len(self.trained), batch_size, seed, steps_per_epoch)
        self.batches = Batches(batches, lambda places_B: self.collate(self.trained[places_B]))

    def train_dataloader(self) -> Batches[PreferenceBatch]:
        return self.batches

    def val_dataloader(self) -> Batches[PreferenceBatch] | list[PreferenceBatch]:
        """The held-back users, each once over all processes; nothing where there are none."""
        if len(self.held_back) == 0:
            return []
        splits = np.split(self.held_back, range(self.eval_batch_size, len(self.held_back), self.eval_batch_size))
        return Batches(splits, self.collate)

    def collate(self, users_B: NDArray[np.int64]) -> PreferenceBatch:
        """This process's share of one step."""
        mine_B, counted = own_share(users_B)
        examples = self.packer([self.histories[user] for user in mine_B])
        return PreferenceBatch(examples, torch.from_numpy(self.targets_UK[mine_B]), counted, len(users_B))

    def sample(self, num_users: int) -> PackedExamples:
        """Some of the users that are trained on, drawn at random, the same in every process."""
        users = self.trained[np.random.default_rng(self.seed).permutation(len(self.trained))[:num_users]]
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
