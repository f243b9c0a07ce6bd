"""The tokens of all titles, each tokenised once.

Shapes: I items (row 0 is padding), N tokens of all titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from tslrec.llm.continuations import continuations
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class ItemTokens:
    """The tokens of each item's title, with the space before it.

    Attributes:
        tokens_N: int64, token ids of all titles, item after item.
        offsets_I: int64 `[I + 2]`; item i's tokens are `tokens_N[offsets_I[i]:offsets_I[i + 1]]`; padding has none.
    """

    tokens_N: NDArray[np.int64]
    offsets_I: NDArray[np.int64]

    def __getitem__(self, item: int) -> NDArray[np.int64]:
        """The tokens of an item's title."""
        return self.tokens_N[self.offsets_I[item] : self.offsets_I[item + 1]]


def encode_titles(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], title_tokens: int) -> ItemTokens:
    """Tokenises titles; of a longer one, the text of its first tokens is kept.

    Args:
        tokenizer: of the language model.
        texts: the title of each item `[I + 1]`, "" for padding; no other is empty.
        title_tokens: tokens of a title at most, as the title alone is encoded.

    Raises:
        UserError: see `continuations`.
    """
    titles = [" ".join(text.split()) for text in texts[1:]]
    alone = tokenizer(titles, add_special_tokens=False).input_ids if titles else []
    cut = [
        title if len(tokens) <= title_tokens else readable(tokenizer, tokens[:title_tokens]) or title[0]
        for title, tokens in zip(titles, alone, strict=True)
    ]
    encoded = [[], *continuations(tokenizer, [f" {title}" for title in cut])]
    lengths = np.array([len(tokens) for tokens in encoded], dtype=np.int64)
    flat = [token for tokens in encoded for token in tokens]
    return ItemTokens(np.array(flat, dtype=np.int64), np.concatenate([[0], np.cumsum(lengths)]))


def refuse_unknown_words(tokens_N: NDArray[np.int64], base: PreTrainedModel) -> None:
    """Refuses titles with tokens that the language model has no embeddings of.

    Args:
        tokens_N: token ids of all titles.
        base: the language model.

    Raises:
        UserError: naming the token.
    """
    known = cast("nn.Embedding", base.get_input_embeddings()).num_embeddings
    largest = int(tokens_N.max(initial=0))
    if largest >= known:
        raise UserError(
            f"llm: its tokenizer gives token {largest} in a title, the model has {known}; give the model's own "
            "tokenizer"
        )


def readable(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """The text of some tokens, without half a character at its end."""
    text = tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
    return " ".join(str(text).rstrip("\ufffd").split())
