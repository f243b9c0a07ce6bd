"""The metrics that a configuration has chosen by their names, and their count under both protocols.

Shapes: B users, K items of a list, I items (0 is padding).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from tslrec.evaluation.metrics import METRICS_BY_NAME, ListMetric, RankingMetric
from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.settings.metrics import DEFAULT_METRICS, SELECTING_METRIC
from tslrec.system import devices
from tslrec.system.errors import UserError


def parse_metric(text: str) -> tuple[type[RankingMetric], int]:
    """The class and the cutoff of a metric such as `NDCG@10`.

    Raises:
        UserError: if there is no such metric, or it has no cutoff.
    """
    name, _, cutoff = text.partition("@")
    if name not in METRICS_BY_NAME:
        raise UserError(f"metrics: no metric '{text}'; there are {', '.join(f'{each}@k' for each in METRICS_BY_NAME)}")
    if not re.fullmatch("[1-9][0-9]*", cutoff):
        raise UserError(f"metrics: '{text}' has no cutoff of 1 or more; name it like {name}@10")
    return METRICS_BY_NAME[name], int(cutoff)


def needs_lists(text: str) -> bool:
    """Whether a metric is of the recommended lists rather than of the target's rank."""
    return issubclass(parse_metric(text)[0], ListMetric)


def validation_metrics(names: Sequence[str]) -> list[str]:
    """The metrics of a validation: those of the target's rank, and always the one that selects the weights."""
    chosen = [name for name in names if not needs_lists(name)]
    return chosen if SELECTING_METRIC in chosen else [*chosen, SELECTING_METRIC]


def no_other_process() -> bool:
    """Tells a metric that there is no process group to exchange with."""
    return False


class RankingMetrics(torch.nn.Module):
    """Metrics under both protocols, named like `masked/NDCG@10`.

    Args:
        names: the metrics, such as `NDCG@10`.
        training_counts_I: see `ListMetric`; needed where one is named.

    Attributes:
        list_length: how many recommended items per user its metrics need; 0 where ranks are enough.
        pending: ranks under both protocols that are not counted yet. On a GPU many users are counted at once, since
            each of the small operations of a count takes as long for a batch of users as for all.

    Raises:
        UserError: if a metric is not known.
    """

    def __init__(self, names: Sequence[str] = DEFAULT_METRICS, training_counts_I: Tensor | None = None) -> None:
        super().__init__()
        self.list_length = 0
        self.pending: list[Tensor] = []
        self.metrics = torch.nn.ModuleDict()
        for protocol in PROTOCOLS:
            for name in names:
                metric, k = parse_metric(name)
                if issubclass(metric, ListMetric):
                    assert training_counts_I is not None
                    self.metrics[f"{protocol}/{name}"] = metric(k, training_counts_I)
                    self.list_length = max(self.list_length, k)
                else:
                    self.metrics[f"{protocol}/{name}"] = metric(k)

    def update(self, masked_B: Tensor, unmasked_B: Tensor) -> None:
        """Counts users by their targets' ranks under each protocol."""
        if devices.queues_work(masked_B.device):
            self.pending.append(torch.stack([masked_B, unmasked_B]))
        else:
            self._update(masked_B, unmasked_B, of_lists=False)

    def update_lists(self, masked_BK: Tensor, unmasked_BK: Tensor) -> None:
        """Counts recommended items, from lists of at least `list_length` places, under each protocol."""
        self._update(masked_BK, unmasked_BK, of_lists=True)

    def compute(self) -> dict[str, float]:
        """All metrics over all users and processes so far."""
        if self.pending:
            masked_B, unmasked_B = torch.cat(self.pending, dim=1)
            self._update(masked_B, unmasked_B, of_lists=False)
            self.pending = []
        return {name: float(cast(RankingMetric, metric).compute()) for name, metric in self.metrics.items()}

    def compute_alone(self) -> dict[str, float]:
        """As `compute`, over the users of this process: no other process needs to call it."""
        for metric in self.metrics.values():
            cast(RankingMetric, metric).distributed_available_fn = no_other_process
        return self.compute()

    def reset(self) -> None:
        """Forgets all users."""
        self.pending = []
        for metric in self.metrics.values():
            cast(RankingMetric, metric).reset()

    def _update(self, masked: Tensor, unmasked: Tensor, *, of_lists: bool) -> None:
        given = {"masked": masked, "unmasked": unmasked}
        for name, metric in self.metrics.items():
            if isinstance(metric, ListMetric) == of_lists:
                cast(RankingMetric, metric).update(given[name.split("/")[0]])
