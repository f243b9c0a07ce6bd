"""Rebuilds P5's recommender, whose language model writes a list of items for every user.

Shapes: B users, L positions, S (user, item) pairs of histories, K items of a list.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tslrec.evaluation.protocols import LIST_LENGTH
from tslrec.llm.encoder_decoder.beams import generate_items
from tslrec.llm.encoder_decoder.trie import build_trie
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.item_index.codes import read_item_index
from tslrec.stages.outputs import WEIGHTS
from tslrec.stages.p5.model import empty_model, vocabulary_of, writer_of
from tslrec.stages.p5.packing import PACKER, seen_of
from tslrec.stages.p5.templates import EVALUATED, SEEN
from tslrec.stages.restored import ListGenerator, load_weights


def restore(sources: Sources, folder: Path) -> ListGenerator:
    """The language model with its trained weights, asked by the template of the test.

    A text names its user by the number of the training. Users that were not trained on are all the same one here, with
    the number after the last.

    Args:
        sources: the run's configuration, data set and earlier results.
        folder: the stage's artifact.

    Raises:
        UserError: if a file does not fit, or the T5 that the run began with is not where it was.
    """
    config, numbers, num_users = sources.config, sources.config.p5, sources.interactions.num_users
    index = read_item_index(sources.inputs["item_index"])
    vocabulary = vocabulary_of(config.t5, config.data.name, index)
    writer = writer_of(vocabulary, config.data.name, num_users + 1, index)
    trie = build_trie(writer.output_codes())
    model = empty_model(config.t5, vocabulary)
    load_weights(model, folder / WEIGHTS)
    model.requires_grad_(False).eval()

    def lists(
        items_BL: Tensor, lengths_B: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor, users_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        count, width = items_BL.shape
        users = np.full(count, num_users) if users_B is None else users_B.numpy()
        starts = width * np.arange(count)
        template = np.full(count, EVALUATED[SEEN])
        ends, flat = starts + lengths_B.numpy(), items_BL.numpy().ravel()
        found = []
        for begin in range(0, count, numbers.eval_batch_size):
            rows = slice(begin, min(begin + numbers.eval_batch_size, count))
            texts = writer.inputs(template[rows], users[rows], starts[rows], ends[rows], flat, numbers.max_tokens)
            first, last = np.searchsorted(seen_rows_S.numpy(), [rows.start, rows.stop])
            seen_rows, seen_items = seen_rows_S[first:last].numpy() - rows.start, seen_items_S[first:last].numpy()
            seen = seen_of(trie, seen_rows, seen_items, rows.stop - rows.start)
            packed = PACKER.sources(*texts.rows())
            found.append(generate_items(model, packed, trie, seen, num_beams=numbers.beams))
        items_BK, scores_BK = (torch.cat(each)[:, :LIST_LENGTH] for each in zip(*found, strict=True))
        return items_BK, scores_BK

    return ListGenerator(lists, LIST_LENGTH, sources.interactions.num_items, numbers.max_history)
