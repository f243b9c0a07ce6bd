"""Prompts as token ids, put together from pieces that are tokenised once.

A word is tokenised alike wherever it stands, so the tokens of a prompt are those of its words one after the other. Each
epoch makes hundred thousands of prompts of the same users, items and template texts; here they are gathered by numpy.

Shapes: P pieces, F tokens of all pieces, B prompts, N tokens of all prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tslrec.data.windows import index_in_group
from tslrec.stages.pod.numbering import Numbering
from tslrec.stages.pod.templates import ITEMS, TEMPLATES, USER, parts, written
from tslrec.stages.pod.whole_words import whole_words
from tslrec.system.errors import UserError

END = "</s>"
"""The token at the end of each prompt and each target."""


class Tokenizer(Protocol):
    """What is asked of a vocabulary; the names are those of transformers' tokenizers."""

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text, without `</s>`; the first token of a word begins with `▁`."""

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """The ids of tokens."""


class Prompts(NamedTuple):
    """Prompts one after the other.

    Attributes:
        ids_N: int64, token ids.
        whole_words_N: int64, see `whole_words`.
        lengths_B: int64, tokens of each prompt, `</s>` included.
    """

    ids_N: NDArray[np.int64]
    whole_words_N: NDArray[np.int64]
    lengths_B: NDArray[np.int64]

    def rows(self) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        """The tokens and the whole words of each prompt, for a packer."""
        cuts = np.cumsum(self.lengths_B)[:-1]
        return np.split(self.ids_N, cuts), np.split(self.whole_words_N, cuts)


class PieceTable:
    """The tokens of texts, each a piece with a number.

    Args:
        tokenizer: the vocabulary.
        texts: the pieces; whole words, or several of them.

    Attributes:
        ids_F: int64, the token ids of all pieces.
        named_F: bool, whether a token is part of a `user_…` or `item_…`.
        offsets: int64 `[P + 1]`, where each piece begins in them.
        names_P: bool, whether the piece is a `user_…` or `item_…`.
    """

    def __init__(self, tokenizer: Tokenizer, texts: Iterable[str]) -> None:
        tokens = [tokenizer.tokenize(text) if text != END else [END] for text in texts]
        numbers = [whole_words(each) for each in tokens]
        flat = [token for each in tokens for token in each]
        self.ids_F = np.array(tokenizer.convert_tokens_to_ids(flat), dtype=np.int64)
        self.named_F = np.concatenate([*numbers, np.zeros(0, dtype=np.int64)]) > 0
        self.offsets = np.concatenate([[0], np.cumsum([len(each) for each in tokens])]).astype(np.int64)
        self.names_P = np.array([bool(each.any()) for each in numbers], dtype=np.bool_)

    def joined(self, pieces: NDArray[np.int64], counts_B: NDArray[np.int64]) -> Prompts:
        """Texts of several pieces.

        Args:
            pieces: numbers of the pieces of all texts, one text after the other.
            counts_B: pieces of each text, 1 or more.
        """
        lengths = np.diff(self.offsets)[pieces]
        index_N = np.repeat(self.offsets[pieces], lengths) + index_in_group(lengths)
        starts_B = np.cumsum(counts_B) - counts_B
        named = self.names_P[pieces].astype(np.int64)
        # Of each piece, how many names its text has up to it.
        names = np.cumsum(named)
        count = names - np.repeat((names - named)[starts_B], counts_B)
        words_N = np.where(self.named_F[index_N], np.repeat(count, lengths), 0)
        lengths_B = np.add.reduceat(lengths, starts_B) if len(counts_B) else np.zeros(0, dtype=np.int64)
        return Prompts(self.ids_F[index_N], words_N, lengths_B.astype(np.int64))


class PromptWriter:
    """Writes prompts and targets for the users and items of a data set.

    Args:
        tokenizer: the vocabulary.
        numbering: the numbers of users and items.

    Attributes:
        table: the pieces of prompts: template texts, users, items, `</s>`.
        targets: the pieces of targets: an item's bare number each, by item id; the last one is `</s>`.
        templates: by task, the parts of each of its templates: numbers of pieces, or a field.

    Raises:
        UserError: if the tokens of a word depend on what stands beside it.
    """

    def __init__(self, tokenizer: Tokenizer, numbering: Numbering) -> None:
        between: dict[str, int] = {}
        self.templates: dict[int, list[list[int | str]]] = {}
        for task, texts in TEMPLATES.items():
            self.templates[task] = [
                [part if part in (USER, ITEMS) else between.setdefault(part, len(between)) for part in parts(text)]
                for text in texts
            ]
        self.users_begin = len(between)
        self.items_begin = self.users_begin + len(numbering.of_user_U)
        users, items = numbering.of_user_U.tolist(), numbering.of_item_I.tolist()
        self.end = self.items_begin + len(items)
        names = [*(f"user_{number}" for number in users), *(f"item_{number}" for number in items)]
        self.table = PieceTable(tokenizer, [*between, *names, END])
        self.targets = PieceTable(tokenizer, [*(str(number) for number in items), END])
        self.check(tokenizer, numbering)

    def check(self, tokenizer: Tokenizer, numbering: Numbering) -> None:
        """Tokenises a prompt of each template as a whole.

        Raises:
            UserError: if its tokens are others than those of its pieces.
        """
        shown = np.arange(1, min(4, len(numbering.of_item_I)))
        number = int(numbering.of_user_U[0])
        for task, texts in TEMPLATES.items():
            for template, text in enumerate(texts):
                whole = written(text, number, numbering.of_item_I[shown].tolist())
                ids = tokenizer.convert_tokens_to_ids([*tokenizer.tokenize(whole), END])
                if ids != self.prompts(task, [0], [shown], [template]).ids_N.tolist():
                    raise UserError(
                        f"llm: its tokenizer cuts the words of '{whole[:80]}' by what stands beside them; use T5's"
                    )

    def prompts(
        self, task: int, users: Sequence[int], items: Sequence[NDArray[np.int64]], templates: Sequence[int]
    ) -> Prompts:
        """Writes a prompt per user.

        Args:
            task: one of `TASKS`.
            users: rows of the users in the data set.
            items: item ids of each prompt, in order.
            templates: of each prompt the number of its template; -1 is the bare one.
        """
        rows = [self.pieces(task, *each) for each in zip(users, items, templates, strict=True)]
        counts_B = np.array([len(row) for row in rows], dtype=np.int64)
        return self.table.joined(np.concatenate([*rows, np.zeros(0, dtype=np.int64)]), counts_B)

    def pieces(self, task: int, user: int, items: NDArray[np.int64], template: int) -> NDArray[np.int64]:
        """The pieces of one prompt; the arguments are those of `prompts`."""
        found: list[NDArray[np.int64]] = []
        for part in self.templates[task][template]:
            if part == ITEMS:
                found.append(self.items_begin + items)
            else:
                found.append(np.array([self.users_begin + user if part == USER else part], dtype=np.int64))
        return np.concatenate([*found, np.array([self.end])])

    def labels(self, items_B: NDArray[np.int64]) -> Prompts:
        """Writes the targets: an item's bare number and `</s>`; their whole words have no meaning."""
        pieces = np.stack([items_B, np.full_like(items_B, len(self.targets.names_P) - 1)], axis=1)
        return self.targets.joined(pieces.reshape(-1), np.full(len(items_B), 2, dtype=np.int64))

    def label_lengths(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of each item's target, `</s>` included, int64."""
        return np.diff(self.targets.offsets)[items] + 1

    def item_codes(self) -> list[tuple[int, ...]]:
        """The tokens of each item's target without `</s>`, by item id, for a trie; none for padding."""
        begins, flat = self.targets.offsets.tolist(), self.targets.ids_F.tolist()
        codes = [tuple(flat[begin:end]) for begin, end in pairwise(begins[:-1])]
        return [(), *codes[1:]]
