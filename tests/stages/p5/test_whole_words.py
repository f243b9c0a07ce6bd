"""Whole words equal those of the public code, on its padded batch and on clean texts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from support.checkout import golden_folder
from tslrec.stages.p5.pieces import PieceTable
from tslrec.stages.p5.vocabulary import END, PADDING, WORD
from tslrec.stages.p5.whole_words import LARGEST, released_whole_words, whole_words

GOLDEN = golden_folder() / "rivals"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the reference files are not beside the checkout")


def starts(tokens: NDArray[np.str_]) -> NDArray[np.bool_]:
    return np.char.startswith(tokens, WORD)


@needs_golden
def test_the_written_out_examples() -> None:
    reference = json.loads((GOLDEN / "whole_word.json").read_text(encoding="utf-8"))["p5"]
    tokens = np.array(reference["tokens"])
    clean = whole_words(starts(tokens), (tokens != END) & (tokens != PADDING))
    assert clean.tolist() == reference["clean"]
    assert released_whole_words(starts(tokens), tokens == PADDING).tolist() == reference["padded"]


@needs_golden
@pytest.mark.parametrize("prefix", ["", "num_", "test_"])
def test_the_batches_of_the_model(prefix: str) -> None:
    arrays: dict[str, NDArray[Any]] = dict(np.load(GOLDEN / "P5.npz"))
    vocabulary = np.array(json.loads(str(arrays["meta"]))["vocab"])
    ids, mask = arrays[f"{prefix}input_ids"], arrays[f"{prefix}attention_mask"]
    tokens = vocabulary[ids]
    np.testing.assert_array_equal(tokens == PADDING, mask == 0)
    found = released_whole_words(starts(tokens), mask == 0)
    np.testing.assert_array_equal(found, arrays[f"{prefix}whole_word_ids"])
    clean = whole_words(starts(tokens), (mask == 1) & (tokens != END))
    if prefix == "":
        np.testing.assert_array_equal(clean, arrays["whole_word_ids_clean"])
    # The two differ at the ends of texts alone.
    assert (tokens[clean != found] == END).all()


@needs_golden
def test_texts_of_pieces_have_the_same_words() -> None:
    """Each token of the reference as a piece of its own."""
    arrays: dict[str, NDArray[Any]] = dict(np.load(GOLDEN / "P5.npz"))
    vocabulary = json.loads(str(arrays["meta"]))["vocab"]

    class Single:
        def __init__(self) -> None:
            self.input_ending = self.output_ending = [1]

        def encode(self, text: str, *, first: bool) -> tuple[list[int], list[bool]]:
            return [vocabulary.index(text)], [text.startswith(WORD)]

    table = PieceTable(Single(), ((token, False) for token in vocabulary), [1])
    ids_BS, lengths_B = arrays["input_ids"], arrays["attention_mask"].sum(axis=1)
    pieces = np.concatenate([row[: length - 1] for row, length in zip(ids_BS, lengths_B, strict=True)])
    found = table.texts(pieces, lengths_B - 1)
    np.testing.assert_array_equal(found.ids_BS, ids_BS)
    np.testing.assert_array_equal(found.whole_words_BS, arrays["whole_word_ids_clean"])


def test_words_beyond_the_table_share_its_last_row() -> None:
    every = np.ones((1, 600), dtype=np.bool_)
    numbers = whole_words(every, every)[0]
    assert numbers[:3].tolist() == [1, 2, 3]
    assert numbers.max() == LARGEST == numbers[-1]
