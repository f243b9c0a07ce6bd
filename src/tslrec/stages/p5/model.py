"""P5's vocabulary, language model and trie, as the configuration and the item index say.

Shapes: P pieces, K parts of a template.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from tslrec.llm.encoder_decoder.building import build
from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.source import shape_of
from tslrec.llm.encoder_decoder.t5_weights import redraw_tokens
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.settings.rivals import P5Config
from tslrec.stages.item_index.codes import ItemIndex
from tslrec.stages.p5.pieces import PieceTable, WordPieces
from tslrec.stages.p5.texts import IS_HISTORY, IS_USER, NOTHING, TextWriter, words_of_texts
from tslrec.stages.p5.vocabulary import OwnVocabulary, Tokenizer, number_tokens, t5_tokenizer
from tslrec.stages.p5.whole_words import LARGEST
from tslrec.system.errors import UserError


def vocabulary_of(t5: EncoderDecoderConfig, dataset: str, index: ItemIndex) -> Tokenizer:
    """A T5's tokenizer with the tokens of the index, or a small vocabulary of P5's own words.

    Args:
        t5: the configured language model.
        dataset: the data set's name in the texts.
        index: the item index.

    Raises:
        UserError: if `t5.path` has no tokenizer of a T5.
    """
    if t5.path is None:
        return OwnVocabulary(words_of_texts(dataset), index.new_tokens)
    return cast(Tokenizer, t5_tokenizer(Path(t5.path).expanduser(), index.new_tokens))


def writer_of(vocabulary: Tokenizer, dataset: str, num_users: int, index: ItemIndex) -> TextWriter:
    """What writes the texts of a data set; see `TextWriter`."""
    return TextWriter(WordPieces(vocabulary), dataset, num_users, index.texts)


def new_model(t5: EncoderDecoderConfig, vocabulary: Tokenizer, index: ItemIndex) -> EncoderDecoder:
    """The language model before training; what is random comes from torch's random state.

    Of a T5 with its weights, the tokens of the index are new, and those of numbers are drawn anew, as in OpenP5 (commit
    7f11038; RIVALS.md 3.9), because numbers are names here.
    """
    model = build(t5, len(vocabulary), num_known=len(vocabulary) - len(index.new_tokens))
    if t5.path is not None:
        redraw_tokens(model, torch.from_numpy(number_tokens(vocabulary)))
    return model


def empty_model(t5: EncoderDecoderConfig, vocabulary: Tokenizer) -> EncoderDecoder:
    """The language model whose weights are still to be loaded."""
    return EncoderDecoder(shape_of(t5), len(vocabulary), whole_words=t5.whole_words, dropout=t5.dropout)


def check_words(writer: TextWriter, numbers: P5Config, t5: EncoderDecoderConfig) -> None:
    """Checks that the table of whole words has a row for each word of the longest input.

    Raises:
        UserError: with the number of words.
    """
    most = most_words(writer, numbers)
    if most >= t5.whole_words:
        raise UserError(
            f"t5.whole_words={t5.whole_words}: inputs of P5 have up to {most} words here, numbered from 1; set it to "
            f"{most + 1} or more, or lower p5.max_history or p5.max_tokens"
        )


def most_words(writer: TextWriter, numbers: P5Config) -> int:
    """The largest number that a word of an input may have."""
    words_P = words_of_pieces(writer.table)
    most_of_users = int(words_P[writer.users_begin : writer.items_begin].max(initial=0))
    first, following = words_P[writer.items_begin : writer.following_begin], words_P[writer.following_begin :]
    history = int(first[1:].max(initial=0)) + (numbers.max_history - 1) * int(following[1:].max(initial=0))
    of_kinds = {IS_USER: most_of_users, IS_HISTORY: history, NOTHING: 0}
    longest = max(
        sum(of_kinds[piece] if piece in of_kinds else int(words_P[piece]) for piece in plan)
        for plan in writer.plans_K.tolist()
    )
    return min(longest, numbers.max_tokens - len(writer.table.ending), LARGEST)


def words_of_pieces(table: PieceTable) -> NDArray[np.int64]:
    """How many words begin in each piece, int64 `[P]`."""
    before = np.concatenate([[0], np.cumsum(table.starts_F, dtype=np.int64)])
    words_P: NDArray[np.int64] = np.diff(before[table.offsets])
    return words_P
