"""Rebuilds POD's recommender, whose language model writes a list of items for every user.

Shapes: B users, L positions, S (user, item) pairs of histories, U users of the data set, K items of a list.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tslrec.evaluation.protocols import LIST_LENGTH
from tslrec.llm.encoder_decoder.beams import generate_items
from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.source import shape_of
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.outputs import WEIGHTS
from tslrec.stages.pod.data import BARE_TEMPLATE
from tslrec.stages.pod.lists import ItemLists
from tslrec.stages.pod.numbering import Numbering
from tslrec.stages.pod.pieces import PromptWriter
from tslrec.stages.pod.stage import NUMBERING, packer_of
from tslrec.stages.pod.templates import NUM_TASKS, SEQUENTIAL
from tslrec.stages.pod.vocabulary import vocabulary_of
from tslrec.stages.restored import ListGenerator, load_weights
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_tensors


def restore(sources: Sources, folder: Path) -> ListGenerator:
    """The language model with its trained weights, asked by the bare prompt as in the test.

    A prompt names its user by the number of the training. Users that were not trained on are all the same one here,
    with the number after the last.

    Args:
        sources: the run's configuration, data set and earlier results.
        folder: the stage's artifact.

    Raises:
        UserError: of the released form, in which a list depends on the other users of its batch; if a file does not
            fit; or if the T5 that the run began with is not where it was.
    """
    config, numbers = sources.config, sources.config.pod
    if numbers.released:
        raise UserError(
            f"{folder}: pod.released=true gives lists that depend on which users share a batch, so it recommends "
            "nothing; train with pod.released=false"
        )
    vocabulary, stored = vocabulary_of(config.t5), load_tensors(folder / NUMBERING)
    of_user_U = stored["users"].numpy()
    unknown = len(of_user_U)
    writer = PromptWriter(vocabulary.tokenizer, Numbering(np.append(of_user_U, unknown + 1), stored["items"].numpy()))
    trie = ItemLists(writer.item_codes(), numbers.num_beams).trie
    model = EncoderDecoder(
        shape_of(config.t5),
        len(vocabulary),
        num_prompts=NUM_TASKS * numbers.prompt_vectors,
        whole_words=config.t5.whole_words,
        dropout=config.t5.dropout,
    )
    load_weights(model, folder / WEIGHTS)
    model.requires_grad_(False).eval()
    packer = packer_of(numbers)

    def lists(
        items_BL: Tensor, lengths_B: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor, users_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        lengths = lengths_B.tolist()
        users = [unknown] * len(lengths) if users_B is None else users_B.tolist()
        shown = [row[:length].numpy() for row, length in zip(items_BL, lengths, strict=True)]
        found = []
        for begin in range(0, len(users), numbers.eval_batch_size):
            end = min(begin + numbers.eval_batch_size, len(users))
            rows = slice(begin, end)
            count = end - begin
            prompts = writer.prompts(SEQUENTIAL, users[rows], shown[rows], [BARE_TEMPLATE] * count)
            packed = packer.sources(*prompts.rows(), [SEQUENTIAL] * count)
            borders = np.searchsorted(seen_rows_S.numpy(), np.arange(begin, end + 1))
            flat = seen_items_S.numpy()[borders[0] : borders[-1]]
            seen = trie.seen(np.split(flat, borders[1:-1] - borders[0]))
            found.append(generate_items(model, packed, trie, seen, num_beams=numbers.num_beams))
        items_BK, scores_BK = (torch.cat(each)[:, :LIST_LENGTH] for each in zip(*found, strict=True))
        return items_BK, scores_BK

    return ListGenerator(lists, LIST_LENGTH, sources.interactions.num_items, numbers.history)
