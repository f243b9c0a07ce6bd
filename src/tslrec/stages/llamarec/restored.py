"""Rebuilds LlamaRec's recommender: the retriever, and the language model that reranks its first items.

Shapes: B users, L positions, K items that are reranked, E size of a user vector.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tslrec.data.item_titles import read_item_titles
from tslrec.llm.adapter import load_adapted
from tslrec.llm.loading import load
from tslrec.llm.text import TextLLM
from tslrec.llm.title_tokens import encode_titles
from tslrec.llm.token_head import load_token_head
from tslrec.llm.weights_source import resolve
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.llamarec.model import ranker_packer
from tslrec.stages.llamarec.prompt import pieces_for
from tslrec.stages.restored import Reranker, Restored, restore_backbone


def restore(sources: Sources, folder: Path) -> Restored:
    """The retriever, and the language model with its adapter.

    Args:
        sources: the run's configuration, data set and earlier results.
        folder: the stage's artifact.

    Raises:
        UserError: if the language model's weights cannot be had.
    """
    llm, numbers = sources.config.llm, sources.config.llamarec
    source = resolve(llm, Path(sources.config.cache))
    base, tokenizer = load(source, dtype=llm.dtype, weight_bits=llm.weight_bits)
    adapted, _ = load_adapted(base, folder)
    pieces = pieces_for(tokenizer, numbers)
    head_VH = load_token_head(source, base, getattr(torch, llm.dtype))
    model = TextLLM(adapted, pieces.prefix, head_VH, shared_prefix=llm.shared_prefix)
    model.requires_grad_(False).eval()
    packer = ranker_packer(pieces, shared_prefix=llm.shared_prefix)
    items = encode_titles(tokenizer, read_item_titles(sources.inputs["titles"]).texts, numbers.title_tokens)
    letters_K = torch.from_numpy(pieces.answer.letters_C)
    with torch.inference_mode():
        prefix = model.run_prefix() if model.shared_prefix else None

    def scores(items_BL: Tensor, lengths_B: Tensor, lists_BK: Tensor) -> Tensor:
        found = []
        for begin in range(0, len(lists_BK), numbers.eval_batch_size):
            rows = slice(begin, begin + numbers.eval_batch_size)
            each = zip(items_BL[rows].numpy(), lengths_B[rows].tolist(), lists_BK[rows].numpy(), strict=True)
            prompts = [
                pieces.prompt(row[max(0, length - numbers.history) : length], listed[listed > 0], items)
                for row, length, listed in each
            ]
            states_BH = model.end_states(packer(prompts), prefix)[:, 0]
            found.append(model.token_scores(states_BH, letters_K))
        return torch.cat(found) if found else torch.zeros(0, len(letters_K))

    retriever = restore_backbone(sources, sources.inputs["backbone"])

    def encode(items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        return retriever.encode(*last_items(items_BL, lengths_B, retriever.max_len))

    max_len = max(retriever.max_len, numbers.history)
    return Restored(encode, retriever.output_IE, max_len, reranker=Reranker(scores, numbers.candidates))


def last_items(items_BL: Tensor, lengths_B: Tensor, max_len: int) -> tuple[Tensor, Tensor]:
    """The last `max_len` items of each sequence, padded on the right, and their number.

    Args:
        items_BL: item ids, padded with 0 on the right.
        lengths_B: number of items of each sequence.
        max_len: items that are kept at most.
    """
    kept_B = lengths_B.clamp(max=max_len)
    column_L = torch.arange(int(kept_B.max()) if len(kept_B) else 0)
    index_BL = ((lengths_B - kept_B)[:, None] + column_L).clamp(max=items_BL.shape[1] - 1)
    return items_BL.gather(1, index_BL).masked_fill(column_L >= kept_B[:, None], 0), kept_B
