"""P5's batches as its language model takes them: texts are packed while they are on the CPU.

Shapes: U users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import lightning
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tslrec.config import TrainingConfig
from tslrec.data.batching import Batches
from tslrec.data.datamodule import sample_users
from tslrec.data.interactions import TEST, VALIDATION
from tslrec.evaluation.hooks import EvaluatedUsers
from tslrec.llm.encoder_decoder.packing import Batch, Sources
from tslrec.llm.encoder_decoder.trie import Trie
from tslrec.stages.p5.data import AskedUsers, TextBatch, TextDataModule
from tslrec.stages.p5.packing import PACKER, seen_of
from tslrec.stages.p5.templates import SEEN, UNSEEN

Texts = TypeVar("Texts")
Packed = TypeVar("Packed")


class PackedTexts(NamedTuple):
    """This process's share of the texts of one optimizer step.

    Attributes:
        batch: inputs and outputs.
        share: of the step's texts, over all processes; 0 on a rank without texts of its own, which runs a duplicate.
    """

    batch: Batch
    share: float


class PackedUsers(NamedTuple):
    """Users whose lists are generated.

    Attributes:
        sources: their inputs.
        seen: their seen items (`Trie.seen`).
        users: who they are, and the items to find.
        counted: see `AskedUsers`.
    """

    sources: Sources
    seen: Tensor
    users: EvaluatedUsers
    counted: bool


class PackedDataModule(lightning.LightningDataModule):
    """The batches of a `TextDataModule`, packed; validation and test may be of users drawn at random.

    Args:
        texts: gives the texts.
        trie: of all items.
        training: how many users are evaluated.

    Attributes:
        batches: of the training.
        validated: rows of the users of the validation, `[U]`.
        tested: rows of the users of the test.
    """

    def __init__(self, texts: TextDataModule, trie: Trie, training: TrainingConfig) -> None:
        super().__init__()
        self.texts = texts
        self.trie = trie
        self.batches = repacked(texts.batches, packed_texts)
        self.validated = sample_users(texts.interactions, training.validation_users)
        self.tested = sample_users(texts.interactions, training.test_users)

    def train_dataloader(self) -> Batches[PackedTexts]:
        return self.batches

    def val_dataloader(self) -> Batches[PackedUsers]:
        return self.evaluation(VALIDATION, SEEN, self.validated)

    def test_dataloader(self) -> Batches[PackedUsers]:
        return self.evaluation(TEST, SEEN, self.tested)

    def unseen_dataloader(self) -> Batches[PackedUsers]:
        """The users of the test, asked by a template that no training text has."""
        return self.evaluation(TEST, UNSEEN, self.tested)

    def evaluation(self, held_out: int, template: str, users: NDArray[np.int64]) -> Batches[PackedUsers]:
        """Batches of users; the arguments are those of `TextDataModule.evaluation`."""
        return repacked(self.texts.evaluation(held_out, template, users), lambda asked: packed_users(asked, self.trie))


def repacked(batches: Batches[Texts], pack: Callable[[Texts], Packed]) -> Batches[Packed]:
    """The same batches, packed where they are made: on a GPU in the background, while it computes."""
    collate: Callable[[Any], Texts] = batches.collate
    return Batches(batches.indices, lambda indices: pack(collate(indices)))


def packed_texts(texts: TextBatch) -> PackedTexts:
    """Packs texts."""
    share = len(texts.lengths_B) * texts.counted / texts.num_texts
    return PackedTexts(PACKER(texts.tokens, texts.whole_words, texts.targets), share)


def packed_users(asked: AskedUsers, trie: Trie) -> PackedUsers:
    """Packs the inputs of users, and looks up their seen items."""
    users = EvaluatedUsers(asked.users_B, asked.targets_B, asked.seen_rows_L, asked.seen_items_L)
    seen = seen_of(trie, asked.seen_rows_L.numpy(), asked.seen_items_L.numpy(), len(asked.users_B))
    return PackedUsers(PACKER.sources(asked.tokens, asked.whole_words), seen, users, asked.counted)
