"""The ranks and lists of `tslrec.evaluation.ranking` on a GPU: the same definitions, without waiting for the device.

The host asks the device one question per call of `target_ranks`, before the first block: whether scores may overflow.
Nothing else depends on a number on the device: pairs are marked instead of selected, and each block looks at all of
them. Products are float32 whatever the training rounds them to.

Equal scores: columns of one product are summed alike. A table of one block gives the target's score from the very
product that it is compared with. Several blocks are products of one shape, each of which begins at a multiple of
`ALIGNED` rows, so that cuBLAS, which chooses its kernel by shape and alignment, sums all of them alike.

Shapes: B users, R rows of the item table (row 0 is padding), D size of a user vector, S (user, item) pairs of
histories, C rows of a block, K items of a list.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from tslrec.evaluation.best_items import best_columns, empty_lists, merged, padded_to, shifted
from tslrec.evaluation.one_type import in_one_type
from tslrec.system.errors import UserError

BLOCK_BYTES = 256 * 2**20
"""Bytes of scores held at a time: much work for each launch of a kernel."""
ALIGNED = 32
"""Blocks begin at multiples of this many rows: of vectors of any width the first one is then aligned to 128 bytes."""


class Block(NamedTuple):
    """Rows of the table whose scores are computed by one product.

    Attributes:
        first: the product's first row.
        begin: the first row that no block before has covered.
        end: after its last row.
    """

    first: int
    begin: int
    end: int


def target_ranks(
    user_BD: Tensor,
    table_RD: Tensor,
    targets_B: Tensor,
    seen_rows_S: Tensor,
    seen_items_S: Tensor,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Tensor, Tensor]:
    """See `tslrec.evaluation.ranking.target_ranks`.

    Args:
        user_BD: user vectors.
        table_RD: the item table; row 0 is padding.
        targets_B: item ids, from 1.
        seen_rows_S: with `seen_items_S`, the items that each row's user had before; a pair may occur more than once.
        seen_items_S: item ids, from 1.
        block_bytes: of scores held at a time.

    Returns:
        Float64 ranks `[B]`: masked and unmasked.

    Raises:
        UserError: if a score is not finite.
    """
    user_BD, table_RD = in_one_type(user_BD, table_RD)
    num_items = len(table_RD) - 1
    blocks, scores_BC = blocks_for(user_BD, table_RD, block_bytes)
    check_scores = may_overflow(user_BD, table_RD[1:])
    pairs_S = (seen_rows_S * len(table_RD) + seen_items_S).sort().values
    rows_S, items_S = pairs_S // len(table_RD), pairs_S % len(table_RD)
    # Of equal pairs, which are neighbours now, only the first one counts.
    counts_S = torch.ones_like(pairs_S, dtype=torch.float64)
    counts_S[1:] = (pairs_S[1:] != pairs_S[:-1]).double()

    target_B1 = None if len(blocks) == 1 else scores_of_targets(user_BD, table_RD, targets_B, blocks, scores_BC)
    ahead_B = torch.zeros_like(targets_B)
    seen_sign_S = torch.zeros_like(counts_S)
    for block in blocks:
        score(user_BD, table_RD, block, scores_BC)
        if check_scores and not torch.isfinite(scores_BC[:, block.begin - block.first :]).all():
            raise UserError("evaluation: scores that are not finite; lower the learning rate, or look at the weights")
        places_B1, here_B1 = places_in(block, targets_B[:, None])
        own_B1 = scores_BC.gather(1, places_B1)
        target_B1 = own_B1 if target_B1 is None else target_B1
        # A target ties with itself, in whichever order its products were summed.
        scores_BC.scatter_(1, places_B1, torch.where(here_B1, target_B1, own_B1))
        new_BC = scores_BC[:, block.begin - block.first :]
        ahead_B += (new_BC > target_B1).sum(dim=1) - (new_BC < target_B1).sum(dim=1)
        places_S, here_S = places_in(block, items_S)
        seen_S, theirs_S = scores_BC[rows_S, places_S], target_B1[rows_S, 0]
        seen_sign_S += ((seen_S > theirs_S).double() - (seen_S < theirs_S).double()) * here_S

    unmasked_B = 1 + (num_items - 1 + ahead_B.double()) / 2
    # Sums of halves are exact in any order.
    masked_B = unmasked_B.index_add(0, rows_S, -(1 + seen_sign_S) / 2 * counts_S)
    is_target_S = (items_S == targets_B[rows_S]).double()
    seen_target_B = torch.zeros_like(unmasked_B).index_add_(0, rows_S, is_target_S) > 0
    return masked_B.masked_fill(seen_target_B, torch.inf), unmasked_B


def top_lists(
    user_BD: Tensor,
    table_RD: Tensor,
    length: int,
    seen_rows_S: Tensor,
    seen_items_S: Tensor,
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Tensor, Tensor]:
    """See `tslrec.evaluation.ranking.top_lists`; the arguments are those of `target_ranks`, and `length` is K."""
    user_BD, table_RD = in_one_type(user_BD, table_RD)
    blocks, scores_BC = blocks_for(user_BD, table_RD, block_bytes)
    unmasked, masked = empty_lists(user_BD), empty_lists(user_BD)
    for block in blocks:
        score(user_BD, table_RD, block, scores_BC)
        new_BC = scores_BC[:, block.begin - block.first :]
        count = min(length, new_BC.shape[1])
        unmasked = merged(unmasked, shifted(best_columns(new_BC, count), block.begin), length)
        places_S, here_S = places_in(block, seen_items_S)
        # Adds minus infinity to the scores of this block's pairs, and nothing to the place of any other pair.
        masks_S = torch.zeros_like(places_S, dtype=scores_BC.dtype).masked_fill_(here_S, -torch.inf)
        scores_BC.index_put_((seen_rows_S, places_S), masks_S, accumulate=True)
        masked = merged(masked, shifted(best_columns(new_BC, count), block.begin), length)
    found = (padded_to(*each, length) for each in (masked, unmasked))
    masked_BK, unmasked_BK = (items_BK.masked_fill(scores_BK == -torch.inf, 0) for items_BK, scores_BK in found)
    return masked_BK, unmasked_BK


def blocks_for(user_BD: Tensor, table_RD: Tensor, block_bytes: int) -> tuple[list[Block], Tensor]:
    """Blocks of one shape that cover all rows but the padding, and the buffer `[B, C]` of the scores of one."""
    size, rows = len(user_BD), len(table_RD)
    most = max(block_bytes // (max(1, size) * user_BD.element_size()), ALIGNED)
    if rows <= most:
        return [Block(0, 1, rows)], user_BD.new_empty(size, rows)
    step = most // ALIGNED * ALIGNED
    # The last block ends with the table and still begins at a multiple of `ALIGNED`.
    width = min(step + rows % ALIGNED, rows)
    firsts = [*range(0, rows - width, step), rows - width]
    begins = [1, *(before + width for before in firsts[:-1])]
    blocks = [Block(first, begin, first + width) for first, begin in zip(firsts, begins, strict=True)]
    return blocks, user_BD.new_empty(size, width)


def scores_of_targets(
    user_BD: Tensor, table_RD: Tensor, targets_B: Tensor, blocks: list[Block], scores_BC: Tensor
) -> Tensor:
    """Each user's score of its own target, `[B, 1]`, from products of a block's shape.

    Args:
        user_BD: see `target_ranks`.
        table_RD: see `target_ranks`.
        targets_B: see `target_ranks`.
        blocks: of the table.
        scores_BC: the buffer of a block's scores; overwritten.
    """
    width = scores_BC.shape[1]
    parts = []
    for begin in range(0, len(user_BD), width):
        rows_C = targets_B[begin : begin + width]
        chosen_CD = table_RD[torch.nn.functional.pad(rows_C, (0, width - len(rows_C)))]
        score(user_BD, chosen_CD, Block(0, 0, width), scores_BC)
        parts.append(scores_BC[begin : begin + width].diagonal().clone())
    return torch.cat(parts)[:, None]


def score(user_BD: Tensor, table_RD: Tensor, block: Block, scores_BC: Tensor) -> None:
    """Writes the scores of a block's rows into a buffer, in the full precision of the vectors."""
    with full_precision():
        # With `out` autocast leaves the product alone.
        torch.mm(user_BD, table_RD[block.first : block.end].T, out=scores_BC)


def places_in(block: Block, items: Tensor) -> tuple[Tensor, Tensor]:
    """The columns of a block that belong to items, and whether the block is the one that covers them.

    The column of an item that another block covers is any column of this one.
    """
    here = (items >= block.begin) & (items < block.end)
    return (items - block.first).clamp(0, block.end - block.first - 1), here


def may_overflow(user_BD: Tensor, items_ID: Tensor) -> bool:
    """Whether a score may not be finite, by a bound on all of them: far cheaper than a look at each."""
    largest = [torch.linalg.vector_norm(factor, ord=torch.inf).double() for factor in (user_BD, items_ID)]
    bound = largest[0] * largest[1] * user_BD.shape[1]
    return not bool(bound < torch.finfo(user_BD.dtype).max)


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 in products, whatever is set elsewhere."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
