"""The batches of P5's texts in the form that a language model takes: texts are packed while they are on the CPU.

Shapes: U users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import lightning
import numpy as np
from numpy.typing import NDArray

from tslrec.data.batching import Batches
from tslrec.data.evaluated_users import sample_users
from tslrec.data.interactions import TEST, VALIDATION
from tslrec.settings.training import TrainingConfig
from tslrec.stages.p5.data import AskedUsers, TextBatch, TextDataModule
from tslrec.stages.p5.templates import SEEN, UNSEEN

Given = TypeVar("Given")
Packed = TypeVar("Packed")
Texts = TypeVar("Texts")
Users = TypeVar("Users")


class PackedDataModule(lightning.LightningDataModule, Generic[Texts, Users]):
    """The batches of a `TextDataModule`, packed; validation and test may be of users drawn at random.

    Args:
        texts: gives the texts.
        training: how many users are evaluated.
        pack_texts: packs the texts of an optimizer step.
        pack_users: packs the inputs of users whose lists are generated.

    Attributes:
        batches: of the training.
        validated: rows of the users of the validation, `[U]`.
        tested: rows of the users of the test.
    """

    def __init__(
        self,
        texts: TextDataModule,
        training: TrainingConfig,
        pack_texts: Callable[[TextBatch], Texts],
        pack_users: Callable[[AskedUsers], Users],
    ) -> None:
        super().__init__()
        self.texts = texts
        self.pack_users = pack_users
        self.batches = repacked(texts.batches, pack_texts)
        self.validated = sample_users(texts.interactions, training.validation_users)
        self.tested = sample_users(texts.interactions, training.test_users)

    def train_dataloader(self) -> Batches[Texts]:
        return self.batches

    def val_dataloader(self) -> Batches[Users]:
        return self.evaluation(VALIDATION, SEEN, self.validated)

    def test_dataloader(self) -> Batches[Users]:
        return self.evaluation(TEST, SEEN, self.tested)

    def unseen_dataloader(self) -> Batches[Users]:
        """The users of the test, asked by a template that no training text has."""
        return self.evaluation(TEST, UNSEEN, self.tested)

    def evaluation(self, held_out: int, template: str, users: NDArray[np.int64]) -> Batches[Users]:
        """Batches of users; the arguments are those of `TextDataModule.evaluation`."""
        return repacked(self.texts.evaluation(held_out, template, users), self.pack_users)


def repacked(batches: Batches[Given], pack: Callable[[Given], Packed]) -> Batches[Packed]:
    """The same batches, packed where they are made: on a GPU in the background, while it computes."""
    collate: Callable[[Any], Given] = batches.collate
    return Batches(batches.indices, lambda indices: pack(collate(indices)))
