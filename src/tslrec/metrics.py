"""Exact full ranking under both protocols, and the metrics that are made of ranks.

Shapes: B users, I items, S (user, item) pairs of histories, D hidden size, C users of a chunk.
"""

from __future__ import annotations

from typing import cast

import torch
import torchmetrics
from torch import Tensor

from tslrec.errors import UserError

CHUNK_BYTES = 64 * 2**20
"""Scores held at a time."""

PROTOCOLS = ("masked", "unmasked")
CUTOFFS = (5, 10)


def ranks_from_scores(
    scores_BI: Tensor, targets_B: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor
) -> tuple[Tensor, Tensor]:
    """Ranks of targets among all items, padding (column 0) excluded.

    A rank is 1 + the items that score strictly higher + half of the other items that score the same, so that a model
    that scores everything alike does not look perfect.

    Args:
        scores_BI: a score per item, column 0 being padding.
        targets_B: item ids.
        seen_rows_S: with `seen_items_S`, which items each row's user had before; a pair may occur more than once.
        seen_items_S: item ids.

    Returns:
        Float64 ranks `[B]`, history masked (seen items are no candidates; a target that is one of them can never be
        recommended, its rank is infinite), and not masked.

    Raises:
        UserError: if a score is not finite.
    """
    candidates_BI = scores_BI[:, 1:]
    if not torch.isfinite(candidates_BI).all():
        raise UserError("evaluation: scores that are not finite; lower the learning rate, or look at the weights")
    target_B1 = candidates_BI.gather(1, targets_B[:, None] - 1)
    higher_B = (candidates_BI > target_B1).sum(dim=1)
    equal_B = (candidates_BI == target_B1).sum(dim=1)
    unmasked_B = 1 + higher_B.double() + (equal_B - 1).double() / 2

    pairs = torch.unique(seen_rows_S * scores_BI.shape[1] + seen_items_S)
    rows, items = pairs // scores_BI.shape[1], pairs % scores_BI.shape[1]
    seen_score = scores_BI[rows, items]
    target_score = target_B1[rows, 0]
    seen_higher_B = torch.zeros_like(higher_B).index_add_(0, rows, (seen_score > target_score).to(higher_B.dtype))
    seen_equal_B = torch.zeros_like(higher_B).index_add_(0, rows, (seen_score == target_score).to(higher_B.dtype))
    masked_B = 1 + (higher_B - seen_higher_B).double() + (equal_B - seen_equal_B - 1).double() / 2
    unreachable = rows[items == targets_B[rows]]
    masked_B[unreachable] = torch.inf
    return masked_B, unmasked_B


def target_ranks(
    user_BD: Tensor, table_ID: Tensor, targets_B: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor
) -> tuple[Tensor, Tensor]:
    """`ranks_from_scores` of dot products, a chunk of users at a time; `seen_rows_S` must not decrease."""
    rows = max(1, CHUNK_BYTES // (len(table_ID) * user_BD.element_size()))
    masked, unmasked = [], []
    for start in range(0, len(user_BD), rows):
        chunk = slice(start, start + rows)
        bounds = torch.searchsorted(seen_rows_S, seen_rows_S.new_tensor([start, start + rows]))
        seen = slice(int(bounds[0]), int(bounds[1]))
        ranks = ranks_from_scores(
            user_BD[chunk] @ table_ID.T, targets_B[chunk], seen_rows_S[seen] - start, seen_items_S[seen]
        )
        masked.append(ranks[0])
        unmasked.append(ranks[1])
    return torch.cat(masked), torch.cat(unmasked)


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

    def gain(self, ranks_B: Tensor) -> Tensor:
        """What a rank within the list is worth."""
        raise NotImplementedError(f"{type(self).__name__} must say what a rank is worth")

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
