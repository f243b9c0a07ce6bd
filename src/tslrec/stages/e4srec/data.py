"""E4SRec's examples (Li et al. 2023): one per interaction in training, one per user in evaluation.

Shapes: N training instances, B examples of a batch, U users, S (user, item) pairs of histories.
"""

from __future__ import annotations

from typing import NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.batching import Batches, RandomBatches, drawn_share, rank_share
from tslrec.data.evaluated_users import evaluation_batches, sample_users, seen_items
from tslrec.data.interactions import Interactions
from tslrec.data.windows import recent_positions
from tslrec.llm.packing import PackedExamples, Packer


class InstanceBatch(NamedTuple):
    """This process's share of the training instances of one optimizer step.

    Attributes:
        examples: the histories before the targets.
        targets_B: int64, item ids to predict.
        counted: False on a rank without instances of its own: it runs a duplicate, because every rank must take part
            in the step, and the result is discarded.
        num_targets: targets of the step, over all processes.
    """

    examples: PackedExamples
    targets_B: Tensor
    counted: bool
    num_targets: int


class RankedBatch(NamedTuple):
    """Users to evaluate.

    Attributes:
        examples: the users' last `max_len` items before the target.
        users_B: int64, indices of the users in the data set.
        targets_B: int64, item ids to rank.
        seen_rows_S: int64, index in this batch of the user of each pair. With `seen_items_S` it gives every item of
            the users' histories before the target.
        seen_items_S: int64, item id of each pair.
        counted: False on a rank without users of its own: it runs a duplicate, because ZeRO-3 gathers weights
            collectively; the result is discarded.
    """

    examples: PackedExamples
    users_B: Tensor
    targets_B: Tensor
    seen_rows_S: Tensor
    seen_items_S: Tensor
    counted: bool


class InstanceDataModule(lightning.LightningDataModule):
    """Training batches of instances, and validation and test batches of users.

    Each of the last `max_len` positions of a training part is a target; the first of them has an empty history.

    Args:
        interactions: the data set.
        packer: the model's packer.
        max_len: targets per user in training; items of a history in evaluation.
        batch_size: instances per optimizer step, over all processes.
        eval_batch_size: users per forward pass in evaluation.
        seed: decides the order of the instances, and which share of them.
        share: share of the instances that is trained on, drawn once.
        validation_users: number of users per validation, drawn at random once; None: all.
        test_users: the same for the test.

    Attributes:
        validated: ids of the users of the validation.
        tested: the same of the test.
    """

    def __init__(
        self,
        interactions: Interactions,
        packer: Packer,
        *,
        max_len: int,
        batch_size: int,
        eval_batch_size: int,
        seed: int,
        share: float = 1.0,
        validation_users: int | None = None,
        test_users: int | None = None,
    ) -> None:
        super().__init__()
        self.interactions = interactions
        self.validated = sample_users(interactions, validation_users)
        self.tested = sample_users(interactions, test_users)
        self.packer = packer
        self.max_len = max_len
        self.eval_batch_size = eval_batch_size
        users_N, shown_N = recent_positions(interactions.train_lengths, max_len)
        kept_N = drawn_share(len(users_N), share, seed)
        users_N, shown_N = users_N[kept_N], shown_N[kept_N]
        counts_U = np.minimum(interactions.train_lengths, max_len)
        self.begins_N = (interactions.offsets[:-1] + interactions.train_lengths - counts_U)[users_N]
        self.targets_N = self.begins_N + shown_N
        self.batches = Batches(RandomBatches(len(self.targets_N), batch_size, seed), self.collate)

    def train_dataloader(self) -> Batches[InstanceBatch]:
        return self.batches

    def val_dataloader(self) -> Batches[RankedBatch]:
        return self.evaluation(self.validated, held_out=2)

    def test_dataloader(self) -> Batches[RankedBatch]:
        return self.evaluation(self.tested, held_out=1)

    def collate(self, instances_B: NDArray[np.int64]) -> InstanceBatch:
        """This process's share of one batch of instances `[B]`."""
        mine_B, counted = rank_share(instances_B)
        begins_B, targets_B = self.begins_N[mine_B], self.targets_N[mine_B]
        items = self.interactions.items
        return InstanceBatch(
            self.pack(begins_B, targets_B), torch.from_numpy(items[targets_B]).long(), counted, len(instances_B)
        )

    def evaluation(self, users: NDArray[np.int64], held_out: int) -> Batches[RankedBatch]:
        """Batches of users, the same and in the same order as those of every recommender.

        Args:
            users: the users' ids.
            held_out: the target's position from the end of the history: 1 for the test item, 2 for validation.
        """
        splits = evaluation_batches(self.interactions, users, self.eval_batch_size)
        return Batches(splits, lambda users_B: self.collate_evaluation(users_B, held_out))

    def collate_evaluation(self, users_B: NDArray[np.int64], held_out: int) -> RankedBatch:
        """This process's users `[B]` as a batch; `held_out` as in `evaluation`."""
        counted = len(users_B) > 0
        if not counted:
            users_B = self.interactions.evaluated_users[:1]
        begins_B, ends_B = self.interactions.offsets[users_B], self.interactions.offsets[users_B + 1] - held_out
        starts_B = np.maximum(begins_B, ends_B - self.max_len)
        seen_rows_S, seen_items_S = seen_items(self.interactions, begins_B, ends_B)
        targets_B = torch.from_numpy(self.interactions.items[ends_B]).long()
        examples = self.pack(starts_B, ends_B)
        return RankedBatch(examples, torch.from_numpy(users_B), targets_B, seen_rows_S, seen_items_S, counted)

    def pack(self, starts_B: NDArray[np.int64], ends_B: NDArray[np.int64]) -> PackedExamples:
        """Packs a history per example: from `starts_B` up to but not including `ends_B` in the flat array of items."""
        items = self.interactions.items
        return self.packer([items[start:end].astype(np.int64) for start, end in zip(starts_B, ends_B, strict=True)])
