"""Columns that no user has a number in are left out of wide user vectors, and of no others."""

from __future__ import annotations

import pytest
import torch

from tslrec.evaluation.ranking import target_ranks, top_lists
from tslrec.evaluation.used_columns import WIDE, with_used_columns


def drawn(size: int, used: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    user_BD = torch.zeros(6, size)
    columns = torch.randperm(size, generator=draw)[:used]
    # Small whole numbers: their sums are the same in any order.
    user_BD[:, columns] = torch.randint(1, 4, (6, used), generator=draw).float()
    return user_BD, torch.randint(-3, 4, (31, size), generator=draw).float()


@pytest.mark.parametrize(("size", "used", "kept"), [(WIDE, 9, 9), (WIDE, 0, 0), (WIDE - 1, 9, WIDE - 1),
                                                    (WIDE, WIDE // 2 + 1, WIDE)])  # fmt: skip
def test_only_wide_vectors_with_few_numbers_change(size: int, used: int, kept: int) -> None:
    user_BD, table_ID = drawn(size, used)
    fewer_BN, table_IN = with_used_columns(user_BD, table_ID)
    assert fewer_BN.shape == (6, kept)
    assert table_IN.shape == (31, kept)
    assert torch.equal(fewer_BN @ table_IN.T, user_BD @ table_ID.T)
    assert (fewer_BN is user_BD) == (kept == size)


def test_ranks_and_lists_are_those_of_all_columns() -> None:
    user_BD, table_ID = drawn(WIDE, 9)
    seen = torch.tensor([0, 3, 3]), torch.tensor([4, 2, 30])
    targets_B = torch.tensor([4, 1, 30, 2, 5, 6])
    dense_BD, dense_ID = user_BD.T[user_BD.any(dim=0)].T, table_ID.T[user_BD.any(dim=0)].T
    for found, wanted in (
        (target_ranks(user_BD, table_ID, targets_B, *seen), target_ranks(dense_BD, dense_ID, targets_B, *seen)),
        (top_lists(user_BD, table_ID, 7, *seen), top_lists(dense_BD, dense_ID, 7, *seen)),
    ):
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
