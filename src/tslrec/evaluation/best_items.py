"""The best items of score rows, exactly: highest score first, of equal scores the lower column first.

Shapes: B rows, C columns, K places, G groups of columns, W columns of a group.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tslrec.system import devices

GROUP = 32
"""Columns of a group. Smaller groups make more maxima to sort, larger ones more candidates."""

LOW_BITS = 2**32 - 1
"""The part of a number of `ranked_columns` that says the column."""


def best_columns(scores_BC: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The columns with the highest scores, best first; of equal scores the lower column is first.

    One pass finds the maximum of each group of neighbouring columns. The best K columns lie in the K groups with the
    highest maxima (of equal maxima, the first groups): each of K groups ahead of another one has a column ahead of all
    of its columns. So only K × W candidates are sorted.

    Args:
        scores_BC: scores; minus infinity for columns that are no candidates.
        length: K, at most C.

    Returns:
        Columns, int64 `[B, K]`, and their scores `[B, K]`. Where a row has fewer than K candidates, the last scores are
        minus infinity.
    """
    size, columns = scores_BC.shape
    groups = columns // GROUP
    if groups <= 2 * length:
        return sorted_best(scores_BC, torch.arange(columns, device=scores_BC.device).expand(size, columns), length)
    whole = groups * GROUP
    maxima_BG = scores_BC[:, :whole].unflatten(1, (groups, GROUP)).amax(dim=2)
    chosen_BK = stable_order(maxima_BG, length).sort(dim=1).values
    candidates = (chosen_BK[:, :, None] * GROUP + torch.arange(GROUP, device=scores_BC.device)).flatten(1)
    if whole < columns:
        rest = torch.arange(whole, columns, device=scores_BC.device).expand(size, columns - whole)
        candidates = torch.cat([candidates, rest], dim=1)
    return sorted_best(scores_BC.gather(1, candidates), candidates, length)


def sorted_best(scores_BC: Tensor, columns_BC: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The best of some candidates, whose columns rise within a row.

    Args:
        scores_BC: the candidates' scores.
        columns_BC: their columns.
        length: K.
    """
    order_BK = stable_order(scores_BC, length)
    return columns_BC.gather(1, order_BK), scores_BC.gather(1, order_BK)


def stable_order(scores_BC: Tensor, length: int) -> Tensor:
    """Positions of the K highest scores of each row, best first; of equal scores the first position first.

    `topk` does not say which of equal scores it takes. A row in which the K-th score occurs again outside of the chosen
    ones is therefore sorted in full; such rows are rare. On a GPU, where asking for such rows makes the host wait, it
    gets numbers of which no two are equal.

    Args:
        scores_BC: scores.
        length: K, at most C.
    """
    columns = scores_BC.shape[1]
    if devices.queues_work(scores_BC.device) and scores_BC.element_size() <= 4:
        return ranked_columns(scores_BC).topk(length, dim=1).values.bitwise_and(LOW_BITS).neg() + (columns - 1)
    if length == columns:
        return scores_BC.sort(dim=1, descending=True, stable=True).indices
    # One place more than needed: if its score is that of the last place, the choice is not determined.
    values, positions = scores_BC.topk(length + 1, dim=1)
    by_position_BK = positions[:, :length].sort(dim=1).values
    within = scores_BC.gather(1, by_position_BK).sort(dim=1, descending=True, stable=True).indices
    found_BK = by_position_BK.gather(1, within)
    tied_B = values[:, length - 1] == values[:, length]
    if bool(tied_B.any()):
        found_BK[tied_B] = scores_BC[tied_B].sort(dim=1, descending=True, stable=True).indices[:, :length]
    return found_BK


def ranked_columns(scores_BC: Tensor) -> Tensor:
    """Distinct numbers in the order of the scores, and of equal scores in falling order of their columns, int64.

    Args:
        scores_BC: scores of at most 32 bits, which are not NaN.
    """
    # Where 0 is added, -0 becomes 0, which it equals as a score but not by its bits.
    bits_BC = (scores_BC.float() + 0.0).view(torch.int32)
    # The bits of negative floats rise with the size of the number, so that they are inverted.
    order_BC = torch.where(bits_BC < 0, bits_BC ^ 0x7FFFFFFF, bits_BC).long()
    columns = scores_BC.shape[1]
    return (order_BC << 32) + torch.arange(columns - 1, -1, -1, device=scores_BC.device)


def merged(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], length: int) -> tuple[Tensor, Tensor]:
    """The best of two lists of columns and scores, where all columns of the first are lower than those of the second.

    Args:
        first: columns and scores, best first.
        second: the same of later columns.
        length: K.

    Returns:
        Columns and scores `[B, min(K, both lists)]`.
    """
    columns = torch.cat([first[0], second[0]], dim=1)
    scores, order = torch.cat([first[1], second[1]], dim=1).sort(dim=1, descending=True, stable=True)
    return columns.gather(1, order)[:, :length], scores[:, :length]


def empty_lists(like: Tensor) -> tuple[Tensor, Tensor]:
    """Lists without places, for as many rows as `like` has: columns and scores `[B, 0]`."""
    return like.new_zeros(len(like), 0, dtype=torch.int64), like.new_zeros(len(like), 0)


def shifted(found: tuple[Tensor, Tensor], by: int) -> tuple[Tensor, Tensor]:
    """Lists whose columns are counted from another place."""
    return found[0] + by, found[1]


def padded_to(columns_BK: Tensor, scores_BK: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Lists extended to K places by column 0 with the score minus infinity."""
    missing = length - columns_BK.shape[1]
    return F.pad(columns_BK, (0, missing)), F.pad(scores_BK, (0, missing), value=-torch.inf)
