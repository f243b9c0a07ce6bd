"""POD's batches as its language model takes them: packed by the data module, beside the device's work on a GPU.

Shapes: B samples or users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import lightning
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.batching import Batches
from tslrec.evaluation.hooks import EvaluatedUsers
from tslrec.llm.encoder_decoder.packing import Batch, Packer, Sources
from tslrec.stages.pod.data import PODDataModule, PromptBatch, TestedUsers
from tslrec.stages.pod.rotation import Turn


class PackedSamples(NamedTuple):
    """This process's samples of a step or of a validation batch, all of one task.

    Attributes:
        batch: sources and targets.
        task: one of `TASKS`.
        samples: how many there are.
        weight: of this batch in the mean over a validation; 0 of a duplicate that does not count.
        share: of the samples in the loss of the whole step, over all processes; 0 of a duplicate.
    """

    batch: Batch
    task: int
    samples: int
    weight: float
    share: float


class PackedUsers(NamedTuple):
    """Users whose lists are generated.

    Attributes:
        sources: their bare prompts, one per user.
        users: in the order of the prompts.
        seen: what the search must know of the items that they had before (`Lists.seen`).
    """

    sources: Sources
    users: EvaluatedUsers
    seen: Tensor | None


class PackedDataModule(lightning.LightningDataModule):
    """Packs the batches of a `PODDataModule`.

    Args:
        prompts: makes the batches.
        packer: of the language model.
        seen: see `Lists.seen`.

    Attributes:
        batches: the training's.
    """

    def __init__(
        self, prompts: PODDataModule, packer: Packer, seen: Callable[[Sequence[NDArray[np.int64]]], Tensor | None]
    ) -> None:
        super().__init__()
        self.prompts = prompts
        self.packer = packer
        self.seen = seen
        self.batches = Batches(prompts.rotation, self.collate)

    def train_dataloader(self) -> Batches[PackedSamples]:
        return self.batches

    def val_dataloader(self) -> Batches[PackedSamples]:
        turns = self.prompts.validation_turns()
        return Batches(turns, lambda turn: self.packed(self.prompts.collate_validation(turn)))  # type: ignore[arg-type]

    def test_dataloader(self) -> Batches[PackedUsers | None]:
        unpacked = self.prompts.test_dataloader()
        return Batches(unpacked.indices, lambda users_B: self.packed_users(unpacked.collate(users_B)))

    def collate(self, turn: Turn) -> PackedSamples:
        """This process's share of a training step."""
        return self.packed(self.prompts.collate(turn))

    def packed(self, samples: PromptBatch) -> PackedSamples:
        """Packs samples.

        The loss is a mean over labels. In the released form padding is a label like others, so that every sample of a
        batch has as many.
        """
        count = len(samples.targets)
        batch = self.packer(*samples.prompts.rows(), samples.targets, [samples.task] * count)
        if self.packer.released:
            mine, everyones = count, samples.num_samples
        else:
            mine, everyones = sum(map(len, samples.targets)), samples.num_labels
        counted = float(samples.counted)
        return PackedSamples(batch, samples.task, count, mine * counted, mine / everyones * counted)

    def packed_users(self, tested: TestedUsers | None) -> PackedUsers | None:
        """Packs users; None if there are none."""
        if tested is None:
            return None
        samples = tested.samples
        sources = self.packer.sources(*samples.prompts.rows(), [samples.task] * len(samples.targets))
        users = EvaluatedUsers(*tested[1:])
        return PackedUsers(sources, users, self.seen(histories_of(users)))


def histories_of(users: EvaluatedUsers) -> list[NDArray[np.int64]]:
    """The items that each user had before, in order; the pairs are sorted by user."""
    counts_B = np.bincount(users.seen_rows_S.numpy(), minlength=len(users.users_B))
    return np.split(users.seen_items_S.numpy(), np.cumsum(counts_B)[:-1])
