"""Scores of all items instead of a list by beam search; for tests and small catalogues.

Shapes: U users, I items.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tslrec.llm.encoder_decoder.beams import generate_items
from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.packing import Sources
from tslrec.llm.encoder_decoder.trie import Trie


@torch.no_grad()
def score_all_items(model: EncoderDecoder, sources: Sources, trie: Trie) -> Tensor:
    """Each item's mean log-probability per token, by as many beams as there are items: none is ever dropped.

    Each node of the trie is computed once. The scores of all tokens after all nodes of a level are in memory at once.

    Args:
        model: the language model, in evaluation.
        sources: one per user.
        trie: of all items.

    Returns:
        `[U, I + 1]` in the caller's order of users; column 0, no item, is -inf.
    """
    items_UI, scores_UI = generate_items(model, sources, trie, None, num_beams=trie.num_items)
    scores = scores_UI.new_full((len(items_UI), trie.num_items + 1), -torch.inf)
    return scores.scatter_(1, items_UI, scores_UI)
