"""What the stages show the language model of each item, as `sft.item_input` says.

Shapes: I items (row 0 is padding).
"""

from __future__ import annotations

from collections.abc import Sequence

from tslrec.data.item_titles import read_item_titles
from tslrec.llm.item_input import EMBEDDINGS, TITLE, ItemInput
from tslrec.llm.loading import load_tokenizer
from tslrec.llm.title_tokens import encode_titles
from tslrec.llm.weights_source import ResolvedSource
from tslrec.stages.context import StageContext
from tslrec.system.errors import UserError


def items_of(context: StageContext, source: ResolvedSource) -> ItemInput:
    """What the language model reads of each item of the run.

    Args:
        context: of a stage that reads `titles` where `sft.item_input` says so.
        source: the language model's weights.

    Raises:
        UserError: see `encode_items`; or if the titles cannot be read.
    """
    sft = context.config.sft
    if not sft.reads_titles:
        return EMBEDDINGS
    texts = read_item_titles(context.inputs["titles"]).texts
    return encode_items(source, texts, item_input=sft.item_input, title_tokens=sft.title_tokens)


def encode_items(source: ResolvedSource, texts: Sequence[str], *, item_input: str, title_tokens: int) -> ItemInput:
    """What the language model reads of items with titles.

    Args:
        source: its weights, of which only the tokenizer is loaded.
        texts: the title of each item `[I + 1]`, "" for padding; no other is empty.
        item_input: `title` or `both`.
        title_tokens: first tokens of a title that are read.

    Raises:
        UserError: if the tokenizer cannot encode titles in the midst of a prompt, or makes nothing of a title that is
            all that is read of the item.
    """
    encoded = encode_titles(load_tokenizer(source), texts, title_tokens)
    titles = [encoded[item][:title_tokens] for item in range(len(texts))]
    if item_input == TITLE:
        for text, tokens in zip(texts[1:], titles[1:], strict=True):
            if not len(tokens):
                raise UserError(
                    f"sft.item_input=title: the tokenizer makes no tokens of the title '{text[:40]}'; set it to both"
                )
    return ItemInput(item_input != TITLE, titles)
