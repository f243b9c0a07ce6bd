"""Pieces of texts (a user, an item, the words between fields) that are tokenised once and then only copied.

An epoch has hundred thousands of texts of the same users, items and templates. As every piece is whole words, which
are tokenised alike wherever they stand, the tokens of a text are those of its pieces.

Shapes: P pieces, F tokens of all pieces, B texts, Q pieces of all texts, N tokens of all texts, S tokens of the
longest text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tslrec.data.windows import index_in_group
from tslrec.stages.p5.vocabulary import END, WORD, Tokenizer
from tslrec.stages.p5.whole_words import whole_words


class Encoded(NamedTuple):
    """Texts as rows of tokens, padded with 0 on the right.

    Attributes:
        ids_BS: int64, token ids, those of the ending included.
        whole_words_BS: int64, the word of each token; 0: none.
        lengths_B: int64, tokens of each text.
    """

    ids_BS: NDArray[np.int64]
    whole_words_BS: NDArray[np.int64]
    lengths_B: NDArray[np.int64]

    def rows(self) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        """The tokens and the words of each text without padding, for a packer."""
        tokens, words = (
            [row[:length] for row, length in zip(each, self.lengths_B.tolist(), strict=True)]
            for each in (self.ids_BS, self.whole_words_BS)
        )
        return tokens, words


class PieceEncoder(Protocol):
    """How a language model's tokenizer encodes pieces.

    Attributes:
        input_ending: ids of what follows every input, also one that is cut.
        output_ending: ids of what follows every output.
    """

    input_ending: list[int]
    output_ending: list[int]

    def encode(self, text: str, *, first: bool) -> tuple[list[int], list[bool]]:
        """The token ids of whole words, and whether each begins a word.

        Args:
            text: the words.
            first: whether they begin the whole text.
        """


class WordPieces:
    """Pieces for an encoder-decoder, whose tokens of a word do not depend on whether it is the first.

    Args:
        tokenizer: the vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.input_ending = self.output_ending = tokenizer.convert_tokens_to_ids([END])

    def encode(self, text: str, *, first: bool) -> tuple[list[int], list[bool]]:
        """See `PieceEncoder`."""
        tokens = self.tokenizer.tokenize(text)
        return self.tokenizer.convert_tokens_to_ids(tokens), [token.startswith(WORD) for token in tokens]


class PieceTable:
    """The tokens of pieces.

    Args:
        encoder: how they are tokenised.
        pieces: their texts, and whether each begins a whole text.
        ending: ids of the tokens that follow every text.

    Attributes:
        ids_F: int64, token ids of all pieces.
        starts_F: bool, whether a token begins a word.
        offsets: int64 `[P + 1]`, where each piece's tokens begin.
    """

    def __init__(self, encoder: PieceEncoder, pieces: Iterable[tuple[str, bool]], ending: list[int]) -> None:
        encoded = [encoder.encode(text, first=first) for text, first in pieces]
        self.ids_F = np.array([number for ids, _ in encoded for number in ids], dtype=np.int64)
        self.starts_F = np.array([start for _, starts in encoded for start in starts], dtype=np.bool_)
        self.offsets = np.cumsum([0, *(len(ids) for ids, _ in encoded)], dtype=np.int64)
        self.ending = np.array(ending, dtype=np.int64)

    def codes(self) -> list[tuple[int, ...]]:
        """The token ids of each piece with the ending."""
        end = tuple(self.ending.tolist())
        return [(*ids.tolist(), *end) for ids in np.split(self.ids_F, self.offsets[1:-1])]

    def texts(self, pieces_Q: NDArray[np.int64], counts_B: NDArray[np.int64], most: int | None = None) -> Encoded:
        """Texts of several pieces each.

        Args:
            pieces_Q: the pieces of all texts, one text after the other.
            counts_B: pieces of each text, 1 or more.
            most: tokens of a text at most: a longer one is cut on the right, and then has its ending. None: no limit.
        """
        lengths_Q = np.diff(self.offsets)[pieces_Q]
        index_N = np.repeat(self.offsets[pieces_Q], lengths_Q) + index_in_group(lengths_Q)
        whole_B = np.bincount(np.repeat(np.arange(len(counts_B)), counts_B), lengths_Q, len(counts_B)).astype(np.int64)
        kept_B = whole_B if most is None else np.minimum(whole_B, most - len(self.ending))
        rows_N, columns_N = np.repeat(np.arange(len(counts_B)), whole_B), index_in_group(whole_B)
        is_kept_N = columns_N < kept_B[rows_N]
        place = rows_N[is_kept_N], columns_N[is_kept_N]
        lengths_B = kept_B + len(self.ending)
        ids_BS = np.zeros((len(counts_B), int(lengths_B.max(initial=0))), dtype=np.int64)
        starts_BS = np.zeros(ids_BS.shape, dtype=np.bool_)
        ids_BS[place], starts_BS[place] = self.ids_F[index_N[is_kept_N]], self.starts_F[index_N[is_kept_N]]
        for number, token in enumerate(self.ending):
            ids_BS[np.arange(len(kept_B)), kept_B + number] = token
        counted_BS = np.arange(ids_BS.shape[1]) < kept_B[:, None]
        return Encoded(ids_BS, whole_words(starts_BS, counted_BS), lengths_B)
