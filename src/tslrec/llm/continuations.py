"""How a tokenizer encodes a text that stands inside of a longer one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tslrec.llm.prompt import encode_text
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEFORE = ")"
"""Text before a piece when it is encoded. SentencePiece would put a space before the beginning of a text."""


def continuations(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of texts as they are after other text.

    Args:
        tokenizer: of the language model.
        texts: each begins with a space and a character that is none, or with a space and a newline.

    Raises:
        UserError: if the tokenizer has a token across the border.
    """
    if not texts:
        return []
    before = encode_text(tokenizer, BEFORE)
    encoded = tokenizer([BEFORE + text for text in texts], add_special_tokens=False).input_ids
    for tokens in encoded:
        if list(tokens[: len(before)]) != before:
            raise UserError(
                "llm: its tokenizer has tokens across a space, so prompts cannot be put together from pieces; choose "
                "another language model"
            )
    return [list(tokens[len(before) :]) for tokens in encoded]
