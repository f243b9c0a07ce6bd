"""P5's batches as a decoder-only language model takes them: inputs and answers are one text, and texts share rows.

Shapes: B texts or users, S tokens of the longest input, T tokens of the longest answer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tslrec.evaluation.hooks import EvaluatedUsers
from tslrec.llm.encoder_decoder.trie import Trie
from tslrec.llm.prompt_packing import PackedPrompts, PromptPacker
from tslrec.stages.p5.data import AskedUsers, TextBatch
from tslrec.stages.p5.packing import seen_of

NO_LABEL = -100
"""Where no token is asked for; PyTorch's cross-entropy leaves it out."""


class AnsweredTexts(NamedTuple):
    """This process's share of the texts of one optimizer step.

    Attributes:
        prompts: inputs with their answers but for the last token, which follows the text's last one.
        labels_BT: int64, the tokens of the answers, at the right; `NO_LABEL` before them.
        counted: False on a rank without texts of its own, which runs a duplicate.
        num_labels: tokens of the answers of the step, over all processes.
    """

    prompts: PackedPrompts
    labels_BT: Tensor
    counted: bool
    num_labels: int


class AskedPrompts(NamedTuple):
    """Users whose lists are generated.

    Attributes:
        tokens_BS: int64, their inputs, padded with 0 on the right.
        lengths_B: int64, tokens of each input.
        seen: their seen items (`Trie.seen`).
        users: who they are, and the items to find.
        counted: see `AskedUsers`.
    """

    tokens_BS: Tensor
    lengths_B: Tensor
    seen: Tensor
    users: EvaluatedUsers
    counted: bool


def answered_texts(texts: TextBatch, packer: PromptPacker) -> AnsweredTexts:
    """Packs texts with their answers."""
    pairs = list(zip(texts.inputs.rows()[0], texts.outputs.rows()[0], strict=True))
    labels_BT = np.full((len(pairs), max(len(target) for _, target in pairs)), NO_LABEL, dtype=np.int64)
    for row_T, (_, target) in zip(labels_BT, pairs, strict=True):
        row_T[-len(target) :] = target
    prompts = packer([np.concatenate([tokens, target[:-1]]) for tokens, target in pairs])
    return AnsweredTexts(prompts, torch.from_numpy(labels_BT), texts.counted, texts.num_labels)


def asked_prompts(asked: AskedUsers, trie: Trie) -> AskedPrompts:
    """The inputs of users as they are, and their seen items looked up."""
    users = EvaluatedUsers(asked.users_B, asked.targets_B, asked.seen_rows_L, asked.seen_items_L)
    seen = seen_of(trie, asked.seen_rows_L.numpy(), asked.seen_items_L.numpy(), len(asked.users_B))
    tokens_BS, lengths_B = torch.from_numpy(asked.inputs.ids_BS), torch.from_numpy(asked.inputs.lengths_B)
    return AskedPrompts(tokens_BS, lengths_B, seen, users, asked.counted)
