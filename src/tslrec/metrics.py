"""Exact full ranking under both protocols, and the metrics that are made of ranks.

Shapes: B users, I items, S (user, item) pairs of histories, D hidden size, C items of a block.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torchmetrics
from torch import Tensor
from torch.nn import Module

from tslrec.errors import UserError

CPU_BLOCK = 2 * 2**20, 256, 2**11
"""Bytes of the scores held at a time, and the least and most items of them: scores are counted while in the cache."""
DEVICE_BLOCK = 256 * 2**20, 2**12, 2**20
"""The same elsewhere: much to do for a kernel. A count of a block is exact in float32 in any case."""

PROTOCOLS = ("masked", "unmasked")
CUTOFFS = (5, 10)


def target_ranks(
    user_BD: Tensor, table_ID: Tensor, targets_B: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor
) -> tuple[Tensor, Tensor]:
    """Ranks of targets among all items by dot products, padding (row 0) excluded; a block of items at a time.

    A rank is 1 + the items that score strictly higher + half of the other items that score the same, so that a model
    that scores everything alike does not look perfect. With n other items, of which H score higher and L lower, that
    is 1 + (n + H - L) / 2, and H - L is a sum of signs: a single pass over scores that are still in the cache.

    Args:
        user_BD: user vectors.
        table_ID: the item table.
        targets_B: item ids.
        seen_rows_S: with `seen_items_S`, which items each row's user had before; a pair may occur more than once.
        seen_items_S: item ids.

    Returns:
        Float64 ranks `[B]`, history masked (seen items are no candidates; a target that is one of them can never be
        recommended, its rank is infinite), and not masked.

    Raises:
        UserError: if a score is not finite.
    """
    dtype = torch.promote_types(user_BD.dtype, table_ID.dtype)
    user_BD, items_ID = user_BD.to(dtype), table_ID[1:].to(dtype)
    size, num_items = len(user_BD), len(items_ID)
    width = block_width(size, num_items, user_BD)
    scores_BC = user_BD.new_empty(size, width)
    target_B = scores_of_targets(user_BD, items_ID, targets_B - 1, scores_BC)
    doubtful = may_overflow(user_BD, items_ID)

    # Distinct pairs by item, then row: each block's pairs, and each block's targets, are a slice.
    pairs_S = torch.unique((seen_items_S - 1) * size + seen_rows_S)
    seen_columns_S, seen_rows_S = pairs_S // size, pairs_S % size
    target_columns_B, target_rows_B = (targets_B - 1).sort()
    begins = torch.arange(0, num_items + width, width, device=user_BD.device)
    seen_cuts = torch.searchsorted(seen_columns_S, begins).tolist()
    target_cuts = torch.searchsorted(target_columns_B, begins).tolist()

    ahead_B = user_BD.new_zeros(size, dtype=torch.float64)
    seen_sign_S = torch.zeros_like(seen_rows_S, dtype=torch.float64)
    for block, begin in enumerate(range(0, num_items, width)):
        # The last block overlaps the one before, so that each product has the same shape (see `scores_of_targets`).
        first = min(begin, num_items - width)
        torch.mm(user_BD, items_ID[first : first + width].T, out=scores_BC)
        if doubtful and not torch.isfinite(scores_BC).all():
            raise UserError("evaluation: scores that are not finite; lower the learning rate, or look at the weights")
        here = slice(target_cuts[block], target_cuts[block + 1])
        rows = target_rows_B[here]
        # A target is equal to itself, whatever the order in which its products were summed.
        scores_BC[rows, target_columns_B[here] - first] = target_B[rows]
        sign_BC = scores_BC.sub_(target_B[:, None]).sign_()
        ahead_B += sign_BC[:, begin - first :].sum(dim=1, dtype=torch.float32)
        seen = slice(seen_cuts[block], seen_cuts[block + 1])
        seen_sign_S[seen] = sign_BC[seen_rows_S[seen], seen_columns_S[seen] - first].double()

    unmasked_B = 1 + (num_items - 1 + ahead_B) / 2
    # Each seen item but the target takes away one other item and its sign.
    is_target_S = seen_columns_S == targets_B[seen_rows_S] - 1
    masked_B = unmasked_B.index_add(0, seen_rows_S, -(1 + seen_sign_S) / 2)
    masked_B[seen_rows_S[is_target_S]] = torch.inf
    return masked_B, unmasked_B


def block_width(size: int, num_items: int, like: Tensor) -> int:
    """Items of a block, whose scores of `size` users are held at a time."""
    block_bytes, least, most = CPU_BLOCK if like.device.type == "cpu" else DEVICE_BLOCK
    width = block_bytes // (max(1, size) * like.element_size())
    return min(max(least, min(width, most)), num_items)


def scores_of_targets(user_BD: Tensor, items_ID: Tensor, target_columns_B: Tensor, scores_BC: Tensor) -> Tensor:
    """Each user's score of its own target, `[B]`; `scores_BC` is where a block's scores are put.

    The product has the shape of a block's, so that it is summed in the same order: an item with the target's vector
    has the target's score, to the last bit.
    """
    size, width = scores_BC.shape
    target_B = user_BD.new_empty(size)
    for begin in range(0, size, width):
        columns_C = target_columns_B[begin : begin + width]
        chosen_CD = items_ID[torch.nn.functional.pad(columns_C, (0, width - len(columns_C)))]
        torch.mm(user_BD, chosen_CD.T, out=scores_BC)
        target_B[begin : begin + width] = scores_BC[begin : begin + width].diagonal()
    return target_B


def may_overflow(user_BD: Tensor, items_ID: Tensor) -> bool:
    """Whether a score may not be finite: far cheaper than to look at each of them."""
    largest = [torch.linalg.vector_norm(factor, ord=torch.inf).double() for factor in (user_BD, items_ID)]
    bound = largest[0] * largest[1] * user_BD.shape[1]
    return not bool(bound < torch.finfo(user_BD.dtype).max)


class MeanOverUsers(torchmetrics.Metric):
    """A metric of one rank, averaged over users; its states are sums, so that it is exact over processes.

    Args:
        k: the length of the list that is looked at.
    """

    full_state_update = False
    total: Tensor
    users: Tensor

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("users", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        """Moves with its module to a device, but keeps counting in float64 where that one goes to bfloat16."""
        super()._apply(fn, exclude_state)
        self.total = self.total.double()
        self._defaults["total"] = cast(Tensor, self._defaults["total"]).double()
        return self

    @abstractmethod
    def gain(self, ranks_B: Tensor) -> Tensor:
        """What a rank within the list is worth."""

    def update(self, ranks_B: Tensor) -> None:
        """Counts users by their targets' ranks, float64, from 1."""
        self.total += torch.where(ranks_B <= self.k, self.gain(ranks_B), 0.0).sum()
        self.users += len(ranks_B)

    def compute(self) -> Tensor:
        """The mean over all users so far.

        Raises:
            ValueError: if there were none.
        """
        if self.users == 0:
            raise ValueError(f"{type(self).__name__}@{self.k} of no users")
        return self.total / self.users


class HitRate(MeanOverUsers):
    """HR@k: how often the target is among the first k."""

    def gain(self, ranks_B: Tensor) -> Tensor:
        return torch.ones_like(ranks_B)


class NDCG(MeanOverUsers):
    """NDCG@k with one target: 1 / log2(rank + 1) where it is among the first k."""

    def gain(self, ranks_B: Tensor) -> Tensor:
        return 1 / torch.log2(ranks_B + 1)


class RankingMetrics(torch.nn.Module):
    """HR and NDCG at each cutoff under both protocols, named like `masked/NDCG@10`."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics = torch.nn.ModuleDict(
            {
                f"{protocol}/{name}@{k}": metric(k)
                for protocol in PROTOCOLS
                for name, metric in (("HR", HitRate), ("NDCG", NDCG))
                for k in CUTOFFS
            }
        )

    def update(self, masked_B: Tensor, unmasked_B: Tensor) -> None:
        """Counts users by their targets' ranks under each protocol."""
        ranks = {"masked": masked_B, "unmasked": unmasked_B}
        for name, metric in self.metrics.items():
            cast(MeanOverUsers, metric).update(ranks[name.split("/")[0]])

    def compute(self) -> dict[str, float]:
        """All metrics over all users and processes so far."""
        return {name: float(cast(MeanOverUsers, metric).compute()) for name, metric in self.metrics.items()}

    def reset(self) -> None:
        for metric in self.metrics.values():
            cast(MeanOverUsers, metric).reset()
