"""Sums over the users that the preference SFT was trained on, from which its training metrics follow."""

from __future__ import annotations

import torch

from tslrec.evaluation.preference_fit import PreferenceFit
from tslrec.system.processes import sum_over_processes

FINAL_SHARE = 1 / 3
"""The last part of the training, as a share of its steps, over which `loss_final` is averaged."""


class TrainingTotals:
    """Fit of the users that were trained on, each user measured in its own step, before that step's update.

    Args:
        num_clusters: K.

    Attributes:
        sums: float64, all sums of this process in one vector; the other attributes are views of it.
        all: fit over all steps.
        final: fit over the last steps (`FINAL_SHARE`).
        tokens: number of tokens read, without the instruction; one element.
    """

    def __init__(self, num_clusters: int) -> None:
        size = PreferenceFit.size(num_clusters)
        self.sums = torch.zeros(2 * size + 1, dtype=torch.float64)
        self.all, self.final = (PreferenceFit(num_clusters, part) for part in self.sums[:-1].split(size))
        self.tokens = self.sums[-1:]

    def over_processes(self, device: torch.device) -> TrainingTotals:
        """The totals summed over all processes; every process must call it."""
        together = TrainingTotals(self.all.num_clusters)
        together.sums.copy_(sum_over_processes(self.sums, device))
        return together

    @property
    def last(self) -> PreferenceFit:
        """The fit over the last steps; over all steps if the training ended before them."""
        return self.final if self.final.users else self.all

    def metrics(self) -> dict[str, float]:
        """Training metrics, means per user.

        Returns:
            `loss_mean` over all steps; `loss_final` and the other metrics of `PreferenceFit` over the last steps; and
            `tokens`, the number of tokens read.
        """
        last = self.last.metrics()
        return {
            "loss_mean": self.all.metrics()["loss"],
            "loss_final": last.pop("loss"),
            **last,
            "tokens": float(self.tokens),
        }
