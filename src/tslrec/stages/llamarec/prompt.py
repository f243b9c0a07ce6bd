"""LlamaRec's prompt (Yue et al. 2023): a history and lettered candidates, after which one letter is the answer.

A text is never encoded whole: titles are tokenised once per item, and a prompt is put together from pieces. Each piece
but the first begins with a space before a character that is none, where neither byte-level BPE nor SentencePiece has
tokens across the border, so that the pieces' tokens are those of the whole text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tslrec.llm.continuations import continuations
from tslrec.llm.prompt import encode_text, start_tokens
from tslrec.llm.title_tokens import ItemTokens
from tslrec.settings.rivals import LlamaRecConfig
from tslrec.stages.llamarec.wording import HEAD, LETTERS, POOL, SEPARATOR, TAIL
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Answer(NamedTuple):
    """The tokens of an answer.

    Attributes:
        letters_C: int64, the token of each candidate's letter after a prompt.
        end: the token that ends an answer; None where the tokenizer has none.
    """

    letters_C: NDArray[np.int64]
    end: int | None


@dataclass(frozen=True)
class PromptPieces:
    """The encoded pieces of prompts.

    Attributes:
        start: tokens with which the model begins every text (BOS), possibly none.
        head: `HEAD`.
        numbers: ` (1)`, ` (2)`, … before the items of a history.
        separator: `SEPARATOR`.
        pool: `POOL`.
        letters: ` (A)`, ` (B)`, … before the candidates.
        tail: `TAIL`.
        answer: what follows.
        max_tokens: the longest prompt; of a longer text the left is cut off, `start` stays.
    """

    start: NDArray[np.int64]
    head: NDArray[np.int64]
    numbers: tuple[NDArray[np.int64], ...]
    separator: NDArray[np.int64]
    pool: NDArray[np.int64]
    letters: tuple[NDArray[np.int64], ...]
    tail: NDArray[np.int64]
    answer: Answer
    max_tokens: int

    @property
    def prefix(self) -> tuple[int, ...]:
        """What all prompts that were not cut begin with."""
        return (*self.start.tolist(), *self.head.tolist())

    def prompt(self, history: NDArray[np.int64], candidates: NDArray[np.int64], items: ItemTokens) -> NDArray[np.int64]:
        """The token ids of a prompt, up to the place of the answer.

        Args:
            history: item ids in time order, at most as many as `numbers`.
            candidates: item ids in the order of their letters, at most as many as `letters`.
            items: the tokens of their titles.
        """
        text = [
            self.head,
            *self.listed(history, self.numbers, items),
            self.pool,
            *self.listed(candidates, self.letters, items),
            self.tail,
        ]
        tokens = np.concatenate(text)
        return np.concatenate([self.start, tokens[max(0, len(tokens) + len(self.start) - self.max_tokens) :]])

    def listed(
        self, chosen: NDArray[np.int64], marks: Sequence[NDArray[np.int64]], items: ItemTokens
    ) -> list[NDArray[np.int64]]:
        """The pieces of a list: the mark and the title of each item, a separator between two."""
        pieces: list[NDArray[np.int64]] = []
        for mark, item in zip(marks, chosen.tolist(), strict=False):
            pieces += [self.separator, mark, items[item]] if pieces else [mark, items[item]]
        return pieces


def pieces_for(tokenizer: PreTrainedTokenizerBase, numbers: LlamaRecConfig) -> PromptPieces:
    """Encodes the pieces of prompts.

    Args:
        tokenizer: of the language model.
        numbers: how many items and tokens there are at most.

    Raises:
        UserError: if a letter is no token of its own after a prompt.
    """

    def piece(text: str) -> NDArray[np.int64]:
        return as_array(continuations(tokenizer, [text])[0])

    letters = LETTERS[: numbers.candidates]
    return PromptPieces(
        start=as_array(start_tokens(tokenizer, HEAD)),
        head=as_array(encode_text(tokenizer, HEAD)),
        numbers=tuple(piece(f" ({number})") for number in range(1, numbers.history + 1)),
        separator=piece(SEPARATOR),
        pool=piece(POOL),
        letters=tuple(piece(f" ({letter})") for letter in letters),
        tail=piece(TAIL),
        answer=Answer(letter_tokens(tokenizer, letters), tokenizer.eos_token_id),
        max_tokens=numbers.max_tokens,
    )


def letter_tokens(tokenizer: PreTrainedTokenizerBase, letters: str) -> NDArray[np.int64]:
    """The token of each letter after a prompt, taken from encoded prompts with their answers.

    With SentencePiece it is another one than that of the letter alone, which has a space before it: the public code
    scores those, and trains these.

    Raises:
        UserError: if a letter is not one token of its own there.
    """
    prompt = f"{HEAD} (1) title{POOL} (A) title{TAIL}"
    without = encode_text(tokenizer, prompt)
    found = []
    for letter in letters:
        tokens = encode_text(tokenizer, prompt + letter)
        if tokens[:-1] != without or tokens[-1] in found or tokens[-1] == tokenizer.unk_token_id:
            raise UserError(
                f"llm: its tokenizer has no token of its own for the letter {letter} after a newline, by which "
                "LlamaRec names a candidate; choose another language model, or fewer llamarec.candidates"
            )
        found.append(tokens[-1])
    return as_array(found)


def as_array(tokens: Sequence[int]) -> NDArray[np.int64]:
    """Token ids as int64."""
    return np.array(tokens, dtype=np.int64)
