"""Sums over the users that the preference SFT was trained on, from which its training metrics follow.

Shapes: B users of a step, K categories, R rows, T tokens of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tslrec.evaluation.preference_fit import PreferenceFit
from tslrec.llm.packing import PADDING_TOKEN, PackedExamples
from tslrec.system.processes import sum_over_processes

FINAL_SHARE = 1 / 3
"""The last part of the training, as a share of its steps, over which `loss_final` is averaged."""

MOST_WAITING = 64
"""Steps whose numbers may wait to be added up."""


class TrainedStep(NamedTuple):
    """What one step predicted, before its update; detached.

    Attributes:
        logits_BK: of the predicted preferences.
        targets_BK: the users' true preferences.
        errors_B: squared errors of the prediction (Eq. 3).
        constant_B: squared errors of the constant predictor.
        examples: the users' histories.
    """

    logits_BK: Tensor
    targets_BK: Tensor
    errors_B: Tensor
    constant_B: Tensor
    examples: PackedExamples


class TrainingTotals:
    """Fit of the users that were trained on, each user measured in its own step, before that step's update.

    The sums are kept on the CPU. The numbers of up to `MOST_WAITING` steps wait on their device, because each transfer
    from a GPU waits for all that the GPU was given to do; they are added step by step, so that the sums do not depend
    on when.

    Args:
        num_clusters: K.

    Attributes:
        all: fit over all steps.
        final: fit over the last steps (`FINAL_SHARE`).
        tokens: number of tokens read, without the instruction; one element.
    """

    def __init__(self, num_clusters: int) -> None:
        size = PreferenceFit.size(num_clusters)
        self._sums = torch.zeros(2 * size + 1, dtype=torch.float64)
        self.all, self.final = (PreferenceFit(num_clusters, part) for part in self._sums[:-1].split(size))
        self.tokens = self._sums[-1:]
        self._waiting: list[tuple[tuple[Tensor, ...], bool]] = []

    @property
    def sums(self) -> Tensor:
        """Float64, all sums of this process in one vector, waiting steps included; the fits are views of it."""
        self.add_waiting()
        return self._sums

    def add(self, step: TrainedStep, *, final: bool) -> None:
        """Counts the users of a step.

        Args:
            step: what the step predicted.
            final: whether the step is one of the last (`FINAL_SHARE`).
        """
        tokens = (step.examples.tokens_RT != PADDING_TOKEN).sum()
        self._waiting.append(((*step[:-1], tokens), final))
        if len(self._waiting) >= MOST_WAITING:
            self.add_waiting()

    def add_waiting(self) -> None:
        """Adds up the steps that wait."""
        waiting, self._waiting = self._waiting, []
        for numbers, final in waiting:
            *predicted, tokens = (each.cpu() for each in numbers)
            logits_BK, targets_BK, errors_B, constant_B = predicted
            for fit in (self.all, self.final)[: 1 + final]:
                fit.add(logits_BK, targets_BK, errors_B, constant_B)
            self.tokens += tokens

    def over_processes(self, device: torch.device) -> TrainingTotals:
        """The totals summed over all processes; every process must call it."""
        together = TrainingTotals(self.all.num_clusters)
        together.sums.copy_(sum_over_processes(self.sums, device))
        return together

    @property
    def last(self) -> PreferenceFit:
        """The fit over the last steps; over all steps if the training ended before them."""
        self.add_waiting()
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
