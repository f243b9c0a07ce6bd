"""How a finished P5 lists items, whatever the form of its language model.

Shapes: B users, L positions, S (user, item) pairs of histories, K items of a list.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tslrec.evaluation.protocols import LIST_LENGTH
from tslrec.llm.encoder_decoder.trie import Trie
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.p5.packing import seen_of
from tslrec.stages.p5.pieces import Encoded
from tslrec.stages.p5.templates import EVALUATED, SEEN
from tslrec.stages.p5.texts import TextWriter
from tslrec.stages.restored import ListGenerator


def list_generator(
    sources: Sources, writer: TextWriter, trie: Trie, listed: Callable[[Encoded, Tensor], tuple[Tensor, Tensor]]
) -> ListGenerator:
    """Lists by the template of the test.

    A text names its user by the number of the training. Users that were not trained on are all the same one here, with
    the number after the last.

    Args:
        sources: the run's configuration and data set.
        writer: writes the texts, also of one user more than the data set has.
        trie: of all items.
        listed: from inputs and the users' seen items (`Trie.seen`) to items `[B, K]` and their scores.
    """
    numbers, num_users = sources.config.p5, sources.interactions.num_users

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
            found.append(listed(texts, seen_of(trie, seen_rows, seen_items, rows.stop - rows.start)))
        items_BK, scores_BK = (torch.cat(each)[:, :LIST_LENGTH] for each in zip(*found, strict=True))
        return items_BK, scores_BK

    return ListGenerator(lists, LIST_LENGTH, sources.interactions.num_items, numbers.max_history)
