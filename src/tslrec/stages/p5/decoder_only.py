"""P5's texts for a decoder-only language model: `{input} Response: {output}` (OpenP5, commit 7f11038, `src_llama`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tslrec.llm.prompt import encode_text
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RESPONSE = "Response:"
"""The word between input and output."""


class ContinuedPieces:
    """Pieces for a language model whose tokens of a word hold the space before it.

    An input begins with the begin token where the tokenizer itself adds it; one that is cut keeps `Response:`. An
    output ends with the tokenizer's end token, or with a newline where it has none. Words have no numbers here.

    Args:
        tokenizer: the language model's, with the tokens of the item index.
        rows: the row of the language model's table for each token that the tokenizer numbers otherwise.

    Raises:
        UserError: if the tokens of two words depend on each other.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: Mapping[int, int] | None = None) -> None:
        self.tokenizer = tokenizer
        self.rows = rows or {}
        begin = tokenizer.bos_token_id
        adds_it = begin is not None and list(tokenizer("item").input_ids)[:1] == [begin]
        self.begin: list[int] = [begin] if adds_it else []
        both = encode_text(tokenizer, f"item {RESPONSE}")
        found = [space for space in (" ", "") if encode_text(tokenizer, "item") + self.after(space, RESPONSE) == both]
        if not found:
            raise UserError("llm: its tokenizer encodes a word differently after other words, so P5 cannot use it")
        self.space = found[0]
        self.input_ending = self.after(self.space, RESPONSE)
        end = tokenizer.eos_token_id
        self.output_ending = encode_text(tokenizer, "\n") if end is None else [int(end)]

    def encode(self, text: str, *, first: bool) -> tuple[list[int], list[bool]]:
        """See `PieceEncoder`."""
        ids = [*self.begin, *self.ids(text)] if first else self.after(self.space, text)
        return ids, [False] * len(ids)

    def after(self, space: str, text: str) -> list[int]:
        """The ids of words that follow others."""
        return self.ids(space + text)

    def ids(self, text: str) -> list[int]:
        """The ids of a text, without begin and end tokens."""
        return [self.rows.get(number, number) for number in encode_text(self.tokenizer, text)]
