"""The positions of several sequences, step by step: first the first item of each, then the second of each, and so on.

Where the sequences stand by falling length, those that still go on at a step are the first of the step before. So a
recurrence reads one contiguous part of memory and writes the next one, and no position is padding.

Shapes: B rows, L positions of a row, S sequences, T positions of all sequences, X any size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tslrec.data.packing import Packing


class StepOrder(NamedTuple):
    """All positions of some sequences in the order of their steps.

    Attributes:
        places_T: int64, where each position lies in the rows `[B, L]`, counted through all rows.
        counts: of each step, how many sequences have an item there; falling, with the sum T.
        last_S: int64, the number in this order of each sequence's last position.
    """

    places_T: Tensor
    counts: list[int]
    last_S: Tensor

    def take(self, rows_BL: Tensor) -> Tensor:
        """The values of the positions in this order, `[T]`."""
        return rows_BL.flatten().index_select(0, self.places_T)

    def restore(self, values_TX: Tensor, shape: torch.Size) -> Tensor:
        """The values at their places in the rows, `[B, L, X]`; 0 at padding.

        Args:
            values_TX: in this order.
            shape: B and L.
        """
        flat = values_TX.new_zeros(shape.numel(), values_TX.shape[1])
        return flat.index_copy(0, self.places_T, values_TX).unflatten(0, shape)


def order_of_rows(lengths_B: Tensor, width: int) -> StepOrder:
    """The order of rows that hold a sequence each.

    Args:
        lengths_B: the sequences' lengths, 1 or more.
        width: L.
    """
    return order_of(torch.arange(len(lengths_B), device=lengths_B.device) * width, lengths_B)


def order_of_packing(packing: Packing) -> StepOrder:
    """The order of rows that hold several sequences one after the other."""
    is_item = packing.sequences_BL.flatten() >= 0
    is_first = is_item & (packing.positions_BL.flatten() == 0)
    sequence_of_item = torch.cumsum(is_first, dim=0)[is_item] - 1
    return order_of(is_first.nonzero()[:, 0], torch.bincount(sequence_of_item))


def order_of(starts_S: Tensor, lengths_S: Tensor) -> StepOrder:
    """The order of sequences that lie somewhere in the rows.

    Args:
        starts_S: the place of each sequence's first position, counted through all rows.
        lengths_S: their lengths, 1 or more.
    """
    ranked_S = torch.argsort(lengths_S, descending=True, stable=True)
    falling_S = lengths_S[ranked_S]
    steps = torch.arange(int(falling_S[0]) if len(falling_S) else 0, device=lengths_S.device)
    goes_on = steps[:, None] < falling_S
    step_T, rank_T = goes_on.nonzero(as_tuple=True)
    counts = goes_on.sum(dim=1)
    before = counts.cumsum(dim=0) - counts
    last_S = torch.empty_like(ranked_S)
    last_S[ranked_S] = before[falling_S - 1] + torch.arange(len(ranked_S), device=lengths_S.device)
    return StepOrder(starts_S[ranked_S][rank_T] + step_T, counts.tolist(), last_S)
