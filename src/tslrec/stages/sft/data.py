"""The examples of the preference SFT, one per user: recent items and the user's preferences (paper, Section 4.1).

Shapes: B users of a batch, U users, H held-back users, K clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.batching import Batches, RandomBatches, rank_share, split_users
from tslrec.data.interactions import Interactions
from tslrec.llm.packing import PackedExamples, Packer


class PreferenceBatch(NamedTuple):
    """This process's share of the users of one optimizer step.

    Attributes:
        examples: the users' histories.
        targets_BK: float32, their normalised interaction frequency vectors.
        counted: False on a rank without users of its own: it runs a duplicate, because every rank must take part in
            the step, and the result is discarded.
        num_users: users of the step, over all processes.
    """

    examples: PackedExamples
    targets_BK: Tensor
    counted: bool
    num_users: int


class PreferenceDataModule(lightning.LightningDataModule):
    """Random batches of users; each pass visits every user once, in an order given by the seed and the pass.

    In a distributed run all processes draw the same batches, and each takes its share of every batch. The seed also
    draws the held-back users, who are never trained on; validation is on them.

    Args:
        interactions: the data set.
        targets_UK: float32, the preferences to reconstruct.
        packer: the model's packer.
        max_len: items of a history: the last ones of the user's training part.
        batch_size: users per optimizer step, over all processes.
        seed: decides the order of the users and who is held back.
        held_back: share of the users who are held back.
        eval_batch_size: held-back users per validation batch, over all processes.
        steps_per_epoch: optimizer steps per epoch; None for one pass over the users.

    Attributes:
        trained: the users that are trained on, ascending.
        held_back: the held-back users, by the length of their history.
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
        """Batches of the held-back users, each user once over all processes; empty if no user is held back."""
        if len(self.held_back) == 0:
            return []
        splits = np.split(self.held_back, range(self.eval_batch_size, len(self.held_back), self.eval_batch_size))
        return Batches(splits, self.collate)

    def collate(self, users_B: NDArray[np.int64]) -> PreferenceBatch:
        """This process's share of one batch of users `[B]`."""
        mine_B, counted = rank_share(users_B)
        examples = self.packer([self.histories[user] for user in mine_B])
        return PreferenceBatch(examples, torch.from_numpy(self.targets_UK[mine_B]), counted, len(users_B))

    def sample(self, num_users: int) -> PackedExamples:
        """Random users out of those that are trained on, the same in every process.

        Args:
            num_users: how many; all of them if there are fewer.
        """
        users = self.trained[np.random.default_rng(self.seed).permutation(len(self.trained))[:num_users]]
        return self.packer([self.histories[user] for user in users])


def training_histories(interactions: Interactions, max_len: int) -> list[NDArray[np.int64]]:
    """Each user's history: the last `max_len` items of the training part, int64, in time order."""
    ends_U = interactions.offsets[:-1] + interactions.train_lengths
    starts_U = ends_U - np.minimum(interactions.train_lengths, max_len)
    items = interactions.items.astype(np.int64)
    return [items[start:end] for start, end in zip(starts_U, ends_U, strict=True)]
