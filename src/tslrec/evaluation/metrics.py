"""The metrics that a configuration may name (`metrics: [HR@10, …]`): one small class each.

To add one, write a subclass of `RankMetric` (a value of the target's rank) or of `ListMetric` (a value of how often
each item was recommended) with a `name` here; nothing else. With one target a user, Recall@k equals HR@k, and MAP@k
equals MRR@k.

The states of every metric are sums, so that it is exact over batches and processes.

Shapes: B users, I items (0 is padding), K items of a list.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torchmetrics
from torch import Tensor
from torch.nn import Module

METRICS_BY_NAME: dict[str, type[RankingMetric]] = {}
"""Every metric that has a name, in the order of this file."""


class RankingMetric(torchmetrics.Metric):
    """A metric at a cutoff.

    Args:
        k: the cutoff: how many of the first items of a list are looked at.

    Attributes:
        name: how a configuration names it, before `@k`; empty for a base class.
    """

    name: ClassVar[str] = ""
    full_state_update = False

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.name:
            METRICS_BY_NAME[cls.name] = cls

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        """Moves to a device with its module, but keeps counting in float64 where that one goes to bfloat16."""
        super()._apply(fn, exclude_state)
        for state, default in self._defaults.items():
            if isinstance(default, Tensor) and default.is_floating_point():
                setattr(self, state, getattr(self, state).double())
                self._defaults[state] = default.double()
        return self

    def refuse_no_users(self, users: Tensor) -> None:
        """Refuses a mean over nothing.

        Raises:
            ValueError: if there were no users.
        """
        if users == 0:
            raise ValueError(f"{type(self).__name__}@{self.k} of no users")


class RankMetric(RankingMetric):
    """The mean over users of a value of the target's rank; 0 where the rank is above k.

    Args:
        k: the cutoff.
    """

    total: Tensor
    users: Tensor

    def __init__(self, k: int) -> None:
        super().__init__(k)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("users", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def gain(self, ranks_B: Tensor) -> Tensor:
        """The value `[B]` of ranks that are at most k; what it gives for others is not used."""

    def update(self, ranks_B: Tensor) -> None:
        """Counts users by their targets' ranks, float64, from 1; infinite where a target cannot be recommended."""
        self.total += self.gain(ranks_B).masked_fill(ranks_B > self.k, 0.0).sum()
        self.users += len(ranks_B)

    def compute(self) -> Tensor:
        """The mean over all users so far.

        Raises:
            ValueError: if there were none.
        """
        self.refuse_no_users(self.users)
        return self.total / self.users


class HitRate(RankMetric):
    """HR@k: the share of users whose target is among the first k."""

    name = "HR"

    def gain(self, ranks_B: Tensor) -> Tensor:
        return torch.ones_like(ranks_B)


class NDCG(RankMetric):
    """NDCG@k with one target: 1 / log2(rank + 1) where it is among the first k."""

    name = "NDCG"

    def gain(self, ranks_B: Tensor) -> Tensor:
        return 1 / torch.log2(ranks_B + 1)


class MRR(RankMetric):
    """MRR@k, the mean reciprocal rank: 1 / rank where the target is among the first k."""

    name = "MRR"

    def gain(self, ranks_B: Tensor) -> Tensor:
        return 1 / ranks_B


class Recall(HitRate):
    """Recall@k: the share of a user's targets among the first k. With one target it equals HR@k."""

    name = "Recall"


class Precision(RankMetric):
    """Precision@k: the share of targets among the first k items; with one target HR@k / k."""

    name = "Precision"

    def gain(self, ranks_B: Tensor) -> Tensor:
        return torch.full_like(ranks_B, 1 / self.k)


class MAP(MRR):
    """MAP@k, mean average precision: the mean of the precision at each target. With one target it equals MRR@k."""

    name = "MAP"


class ListMetric(RankingMetric):
    """A value of how often each item is recommended, over the lists of all users. Of the test only.

    Args:
        k: how many items are recommended to each user.
        training_counts_I: how often each item occurs in the training part, int64 `[I + 1]`.
    """

    times_I: Tensor
    users: Tensor

    def __init__(self, k: int, training_counts_I: Tensor) -> None:
        super().__init__(k)
        self.training_counts_I = training_counts_I
        self.add_state("times_I", torch.zeros(len(training_counts_I), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("users", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def value(self, times_I: Tensor, training_counts_I: Tensor) -> Tensor:
        """The metric.

        Args:
            times_I: how often each item was recommended, int64 `[I]`, without padding.
            training_counts_I: how often each occurs in the training part, int64 `[I]`, without padding.
        """

    def update(self, lists_BK: Tensor) -> None:
        """Counts the first k items of each list: item ids, best first; 0 is an empty place."""
        listed = lists_BK[:, : self.k].flatten()
        # Not `bincount`, which asks the device for the largest item.
        self.times_I.index_add_(0, listed, torch.ones_like(listed))
        self.users += len(lists_BK)

    def compute(self) -> Tensor:
        """The metric of all lists so far.

        Raises:
            ValueError: if there were none.
        """
        self.refuse_no_users(self.users)
        return self.value(self.times_I[1:].cpu(), self.training_counts_I[1:].cpu())


class Coverage(ListMetric):
    """Coverage@k: the share of all items that are recommended to at least one user."""

    name = "Coverage"

    def value(self, times_I: Tensor, training_counts_I: Tensor) -> Tensor:
        return (times_I > 0).double().mean()


class Popularity(ListMetric):
    """Popularity@k: the mean, over all recommended places, of the item's count in the training part.

    0 where nothing is recommended, as no user has a candidate left.
    """

    name = "Popularity"

    def value(self, times_I: Tensor, training_counts_I: Tensor) -> Tensor:
        return (times_I * training_counts_I).sum().double() / times_I.sum().clamp(min=1)


class Gini(ListMetric):
    """Gini@k: the Gini index of how often each item is recommended.

    0 where all items are recommended equally often, and where none is, as no user has a candidate left; (I - 1) / I
    where one item takes all places.
    """

    name = "Gini"

    def value(self, times_I: Tensor, training_counts_I: Tensor) -> Tensor:
        num_items = len(times_I)
        weights_I = 2 * torch.arange(1, num_items + 1) - num_items - 1
        return (weights_I * times_I.sort().values).sum().double() / (num_items * times_I.sum().clamp(min=1))
