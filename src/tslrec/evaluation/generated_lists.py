"""Ranks and lists of a method that generates its recommendations by beam search: places in a list, no full ranking.

A target outside of its user's list has the rank infinity. So HR@k, NDCG@k, MRR@k and their like are exact for k up to
the list's length (`protocols.LIST_LENGTH`), and `RankingHooks` computes them from a `ListedUsers` as from any ranks. A
metric that looks further needs ranks that such a method does not have, and is refused before anything is trained.

Shapes: B or U users, K places of a list, N places of the beams that it is made of, S (user, item) pairs of histories.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.evaluation.protocols import LIST_LENGTH
from tslrec.evaluation.ranking import ranks_in_lists, seen_places


def list_ranks(lists_UK: NDArray[np.int64], targets_U: NDArray[np.int64]) -> NDArray[np.float64]:
    """The place of each target's first occurrence in its user's list, from 1, float64 `[U]`; infinite outside of it.

    Args:
        lists_UK: item ids, best first; 0 is a place that holds no item. An item may occur more than once.
        targets_U: item ids, from 1.
    """
    ranks_U: NDArray[np.float64] = ranks_in_lists(torch.from_numpy(lists_UK), torch.from_numpy(targets_U)).numpy()
    return ranks_U


def free_text_lists(
    beams_BN: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor, length: int = LIST_LENGTH
) -> tuple[Tensor, Tensor]:
    """Lists of the beams of free text, of which some name no item and some name one that stands further ahead.

    Both keep their places and hold no item, so that a text wasted on them costs a place, as in the public code of POD
    (lileipisces/POD fd31697). Where seen items are no candidates, they are struck out of all beams, and what is behind
    them moves up.

    Args:
        beams_BN: the item of each beam, best first; 0 where its text names none.
        seen_rows_S: see `ranking.target_ranks`.
        seen_items_S: see `ranking.target_ranks`.
        length: K; at most N.

    Returns:
        Item ids, int64 `[B, K]`, masked and unmasked, distinct; 0 is a place without an item.
    """
    once_BN = without_repeats(beams_BN)
    # A repeat of a seen item is struck out with it.
    struck_BN = seen_places(beams_BN, seen_rows_S, seen_items_S)
    order_BN = struck_BN.sort(dim=1, stable=True).indices
    masked_BN = once_BN.masked_fill(struck_BN, 0).gather(1, order_BN)
    return masked_BN[:, :length], once_BN[:, :length]


def without_repeats(lists_BK: Tensor) -> Tensor:
    """Lists in which an item keeps its first place only; the places of its repeats hold no item.

    Args:
        lists_BK: item ids, best first; 0 is a place without an item.
    """
    same_BKK = lists_BK[:, :, None] == lists_BK[:, None, :]
    return lists_BK.masked_fill(same_BKK.tril(diagonal=-1).any(dim=2), 0)
