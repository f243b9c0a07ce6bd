"""Lists whose first items another model has put into a new order, and what the targets' ranks then are.

Shapes: B users, K items that are reranked, X ≥ K items of a list.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rerank(lists_BX: Tensor, scores_BK: Tensor) -> Tensor:
    """The lists with their first K items by falling score; equal scores keep the order of the list.

    Args:
        lists_BX: item ids, best first; 0 is an empty place, all of which are at the end.
        scores_BK: new scores of the first K.
    """
    return lists_BX.gather(1, reranked_order(lists_BX, scores_BK))


def reranked_order(lists_BX: Tensor, scores_BK: Tensor) -> Tensor:
    """The places of `lists_BX` in the order of `rerank`, int64 `[B, X]`; the arguments are the same.

    Lists may be shorter than K: scores of places that they lack are not read.
    """
    count = min(scores_BK.shape[1], lists_BX.shape[1])
    scores_BK = scores_BK[:, :count].masked_fill(lists_BX[:, :count] == 0, -torch.inf)
    order_BK = scores_BK.sort(dim=1, descending=True, stable=True).indices
    rest_X = torch.arange(count, lists_BX.shape[1], device=lists_BX.device)
    return torch.cat([order_BK, rest_X.expand(len(lists_BX), -1)], dim=1)


def reranked_ranks(reranked_BX: Tensor, count: int, targets_B: Tensor, ranks_B: Tensor) -> Tensor:
    """The rank of each target where the first K items are reranked and the others follow in their first order.

    Args:
        reranked_BX: lists of `rerank`.
        count: K.
        targets_B: item ids, from 1.
        ranks_B: float64, the targets' ranks before; infinite where a target cannot be recommended.

    Returns:
        Float64 `[B]`: the place among the first K; of another target its earlier rank, which is more than K: where
        scores are equal, half ranks may lie before the place in a list.
    """
    hit_BK = reranked_BX[:, :count] == targets_B[:, None]
    place_B = hit_BK.double().argmax(dim=1) + 1
    return torch.where(hit_BK.any(dim=1), place_B.double(), ranks_B.clamp(min=count + 1))
