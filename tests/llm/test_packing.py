"""Packing loses no token, keeps examples apart and leaves little padding."""

from __future__ import annotations

import numpy as np
import pytest

from tslrec.llm.packing import NO_EXAMPLE, PADDING_TOKEN, PackedExamples, Packer

RESPONSE = [-1, -2]
HISTORIES = [np.arange(1, n + 1) for n in (3, 9, 1, 5, 30, 2)]


def tokens_of(packed: PackedExamples, example: int) -> list[int]:
    return packed.tokens_RT[packed.examples_RT == example].tolist()


@pytest.mark.parametrize("row_length", [None, 16, 64])
def test_each_example_is_its_items_directly_followed_by_the_response(row_length: int | None) -> None:
    packed = Packer(num_response=2, row_length=row_length)(HISTORIES)
    for example, history in enumerate(HISTORIES):
        assert tokens_of(packed, example) == [*history.tolist(), *RESPONSE]


@pytest.mark.parametrize("row_length", [None, 16, 64])
def test_the_last_token_of_each_example_is_the_end_of_the_response(row_length: int | None) -> None:
    packed = Packer(num_response=2, row_length=row_length)(HISTORIES)
    assert packed.examples_RT.flatten()[packed.last_B].tolist() == list(range(len(HISTORIES)))
    assert packed.tokens_RT.flatten()[packed.last_B].tolist() == [-2] * len(HISTORIES)


def test_positions_restart_at_each_example() -> None:
    packed = Packer(num_response=2, row_length=64)(HISTORIES)
    for example, history in enumerate(HISTORIES):
        assert packed.positions_RT[packed.examples_RT == example].tolist() == list(range(len(history) + 2))


def test_short_examples_share_rows() -> None:
    packed = Packer(num_response=2, row_length=32)(HISTORIES)
    assert packed.tokens_RT.shape == (2, 32)


def test_rows_are_as_narrow_as_the_tokens_allow() -> None:
    packed = Packer(num_response=2, row_length=64)([np.arange(1, 3)] * 20)
    assert packed.tokens_RT.shape == (2, 40)
    assert packed.num_tokens == packed.tokens_RT.numel()


def test_an_example_longer_than_a_row_widens_the_rows() -> None:
    packed = Packer(num_response=2, row_length=8)([np.arange(1, 21), np.arange(1, 3)])
    assert packed.tokens_RT.shape[1] >= 22


def test_without_a_row_length_each_example_has_its_own_row() -> None:
    packed = Packer(num_response=2, row_length=None)(HISTORIES)
    assert packed.tokens_RT.shape == (len(HISTORIES), 32)
    assert packed.positions_RT[2].tolist()[:3] == [0, 1, 2]


def test_padding_belongs_to_no_example() -> None:
    packed = Packer(num_response=2, row_length=None)(HISTORIES)
    padding = packed.tokens_RT == PADDING_TOKEN
    assert (packed.examples_RT[padding] == NO_EXAMPLE).all()
    assert packed.num_tokens == sum(len(history) + 2 for history in HISTORIES)
