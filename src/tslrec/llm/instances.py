"""E4SRec's examples: one per interaction to train on, one per user to evaluate.

Shapes: N instances, B examples of a batch, S (user, item) pairs of histories.
"""

from __future__ import annotations

from typing import NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.interactions import Interactions
from tslrec.llm.packing import PackedExamples, Packer
from tslrec.sampling import RandomBatches, own_share
from tslrec.sequences import Batches, evaluation_splits, seen_items
from tslrec.windows import recent_positions


class InstanceBatch(NamedTuple):
    """What this process runs of one step.

    Attributes:
        examples: histories.
        targets_B: item ids.
        counted: see `PreferenceBatch`.
        num_targets: of the step, over all processes.
    """

    examples: PackedExamples
    targets_B: Tensor
    counted: bool
    num_targets: int


class RankedBatch(NamedTuple):
    """Users to evaluate.

    Attributes:
        examples: the last items before the target.
        users_B: rows of the users in the data set.
        targets_B: item ids.
        seen_rows_S: with `seen_items_S` everything before the target.
        seen_items_S: item ids.
        counted: whether they count; a process for which nobody is left runs somebody, since under ZeRO-3 all gather
            the weights together.
    """

    examples: PackedExamples
    users_B: Tensor
    targets_B: Tensor
    seen_rows_S: Tensor
    seen_items_S: Tensor
    counted: bool


class InstanceDataModule(lightning.LightningDataModule):
    """Each of the last `max_len` positions of a training part is a target, its first one too, with an empty history.

    Args:
        interactions: the data set.
        packer: the model's.
        max_len: see above; in an evaluation, the last items that are shown.
        batch_size: instances of one step, over all processes.
        eval_batch_size: users scored at a time.
        seed: decides the order.
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
    ) -> None:
        super().__init__()
        self.interactions = interactions
        self.packer = packer
        self.max_len = max_len
        self.eval_batch_size = eval_batch_size
        users_N, shown_N = recent_positions(interactions.train_lengths, max_len)
        counts_U = np.minimum(interactions.train_lengths, max_len)
        self.begins_N = (interactions.offsets[:-1] + interactions.train_lengths - counts_U)[users_N]
        self.targets_N = self.begins_N + shown_N
        self.batches = Batches(RandomBatches(len(self.targets_N), batch_size, seed), self.collate)

    def train_dataloader(self) -> Batches[InstanceBatch]:
        return self.batches

    def val_dataloader(self) -> Batches[RankedBatch]:
        return self.evaluation(held_out=2)

    def test_dataloader(self) -> Batches[RankedBatch]:
        return self.evaluation(held_out=1)

    def collate(self, instances_B: NDArray[np.int64]) -> InstanceBatch:
        """This process's share of one step."""
        mine_B, counted = own_share(instances_B)
        begins_B, targets_B = self.begins_N[mine_B], self.targets_N[mine_B]
        items = self.interactions.items
        return InstanceBatch(
            self.pack(begins_B, targets_B), torch.from_numpy(items[targets_B]).long(), counted, len(instances_B)
        )

    def evaluation(self, held_out: int) -> Batches[RankedBatch]:
        """As the recommenders' own, which see the same users in the same order."""
        splits = evaluation_splits(self.interactions, self.interactions.evaluated_users, self.eval_batch_size)
        return Batches(splits, lambda users_B: self.collate_evaluation(users_B, held_out))

    def collate_evaluation(self, users_B: NDArray[np.int64], held_out: int) -> RankedBatch:
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
        items = self.interactions.items
        return self.packer([items[start:end].astype(np.int64) for start, end in zip(starts_B, ends_B, strict=True)])
