"""The words that P5's language model knows: a small vocabulary of its own, or the tokenizer of a real T5 with new ones.

Both have the names of transformers' tokenizers; the first token of each word begins with `▁`, as SentencePiece has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tslrec.stages.item_index.number_pieces import NUMBER_PIECES
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORD = "▁"
"""What the first token of a word begins with."""

PADDING, END = "<pad>", "</s>"
"""The first two tokens of a T5 vocabulary, with the ids 0 and 1."""

PIECE = re.compile(r"<[A-Za-z]+[0-9]+>|[0-9]{1,2}|[^\W\d_]+|\S")
"""A token of the own vocabulary: a token of the index, one or two digits, letters, or one other character."""

MOST_NUMBERS = 30_000
"""OpenP5 draws the embeddings of all tokens anew that occur in the numbers below this one."""


class Tokenizer(Protocol):
    """What is asked of a vocabulary; the names are those of transformers' tokenizers."""

    def __len__(self) -> int:
        """Number of tokens."""

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, without `</s>`."""

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """The ids of tokens."""


class OwnVocabulary:
    """The tokens of given texts, and pieces of numbers; for a language model with random weights.

    Args:
        texts: what shall be tokenised later, but for numbers after a `_`.
        new_tokens: the tokens of an item index, such as `<CI0>`.
        bare_numbers: whether numbers may be words of their own, without a `_` before them.

    Attributes:
        tokens: by id: `<pad>`, `</s>`, the pieces of numbers, the tokens of the index, those of the texts.
    """

    def __init__(self, texts: Iterable[str], new_tokens: Sequence[str] = (), *, bare_numbers: bool = False) -> None:
        bare = [WORD + piece for piece in NUMBER_PIECES] if bare_numbers else []
        of_texts = [token for text in texts for token in self.tokenize(text)]
        self.tokens = list(dict.fromkeys([PADDING, END, *NUMBER_PIECES, *bare, *new_tokens, *of_texts]))
        self.ids = {token: number for number, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, whether or not they are in the vocabulary."""
        words = (PIECE.findall(word) for word in text.split())
        return [token for first, *others in words for token in (WORD + first, *others)]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """The ids of tokens.

        Raises:
            KeyError: if a token is not in the vocabulary.
        """
        return [self.ids[token] for token in tokens]


def t5_tokenizer(folder: Path, new_tokens: Sequence[str]) -> PreTrainedTokenizerBase:
    """The tokenizer of a real T5 with the tokens of an item index behind its own.

    Args:
        folder: a folder in the Hugging Face layout.
        new_tokens: see `OwnVocabulary`.

    Raises:
        UserError: if the folder has no tokenizer, or one of another kind than T5's.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise UserError(f"{folder}: no readable tokenizer ({reason}); name the folder of a T5") from error
    if tokenizer.convert_tokens_to_ids([PADDING, END]) != [0, 1] or tokenizer.tokenize("item") == ["item"]:
        raise UserError(f"{folder}: its tokenizer is not T5's: <pad> is 0, </s> is 1, words begin with ▁; name a T5")
    add_tokens(tokenizer, new_tokens)
    return tokenizer


def add_tokens(tokenizer: PreTrainedTokenizerBase, new_tokens: Sequence[str]) -> None:
    """Adds tokens that are found as they are, wherever they stand in a word.

    Args:
        tokenizer: changed in place.
        new_tokens: their texts.
    """
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in new_tokens])


def number_tokens(tokenizer: Tokenizer, below: int = MOST_NUMBERS) -> NDArray[np.int64]:
    """The ids of all tokens that occur in numbers, ascending; OpenP5 draws their embeddings anew.

    Args:
        tokenizer: the vocabulary.
        below: the numbers are 0 … below − 1.
    """
    tokens = {token for number in range(below) for token in tokenizer.tokenize(str(number))} - {WORD, END}
    return np.unique(np.array(tokenizer.convert_tokens_to_ids(sorted(tokens)), dtype=np.int64))
