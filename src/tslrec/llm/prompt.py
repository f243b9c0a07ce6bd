"""A prompt around item embeddings: the instruction before the items and the response after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Prompt(NamedTuple):
    """Token ids of the text around the items (paper, Section 4.1).

    Attributes:
        instruction: d_inst, with a leading BOS token if the method asks for one.
        response: d_res, without special tokens.
    """

    instruction: list[int]
    response: list[int]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, without special tokens."""
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def start_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokens that the tokenizer puts before every text: BOS, or none.

    Args:
        tokenizer: of the language model.
        text: any text that is not empty.
    """
    tokens = list(tokenizer(text).input_ids)
    begins = tokenizer.bos_token_id is not None and tokens[:1] == [tokenizer.bos_token_id]
    return tokens[:1] if begins else []
