"""P5's batches as its language model takes them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tslrec.evaluation.hooks import EvaluatedUsers
from tslrec.llm.encoder_decoder.packing import Batch, Sources
from tslrec.llm.encoder_decoder.trie import Trie
from tslrec.stages.p5.data import AskedUsers, TextBatch
from tslrec.stages.p5.packing import PACKER, seen_of


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


def packed_texts(texts: TextBatch) -> PackedTexts:
    """Packs texts."""
    share = len(texts.inputs.lengths_B) * texts.counted / texts.num_texts
    return PackedTexts(PACKER(*texts.inputs.rows(), texts.outputs.rows()[0]), share)


def packed_users(asked: AskedUsers, trie: Trie) -> PackedUsers:
    """Packs the inputs of users, and looks up their seen items."""
    users = EvaluatedUsers(asked.users_B, asked.targets_B, asked.seen_rows_L, asked.seen_items_L)
    seen = seen_of(trie, asked.seen_rows_L.numpy(), asked.seen_items_L.numpy(), len(asked.users_B))
    return PackedUsers(PACKER.sources(*asked.inputs.rows()), seen, users, asked.counted)
