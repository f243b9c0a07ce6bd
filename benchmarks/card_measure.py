"""How every side measures on a card: spans of work between two points at which the card is idle.

A card works behind the program that feeds it. Waiting for it after each step would slow down a program that runs ahead,
so whole epochs are timed: the clock is read once the card has done all that it was given. The first span of each kind
warms up (kernels are loaded, graphs captured) and does not count. On a CPU, where `make test` rehearses this, there is
nothing to wait for and no memory of a card.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Span:
    """A piece of work.

    Attributes:
        seconds: until the card had done it.
        peak_gib: the most that PyTorch had allocated on the card meanwhile, parameters included; 0 on a CPU.
        reserved_gib: the most that it had taken from the card, the private memory of CUDA graphs included.
        targets: trained in it; 0 where it is no training.
    """

    seconds: float
    peak_gib: float
    reserved_gib: float
    targets: int = 0


@dataclass
class Spans:
    """Measures training and evaluation in turn.

    Attributes:
        device: `cuda`, or `cpu` in a rehearsal.
        training: the spans so far, the first of them a warm-up.
        evaluation: likewise.
    """

    device: torch.device
    training: list[Span] = field(default_factory=list)
    evaluation: list[Span] = field(default_factory=list)
    began: float = 0.0

    def begin(self) -> None:
        """Waits for the card, forgets its peak and starts the clock."""
        self.wait()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.began = time.perf_counter()

    def end(self, targets: int = 0) -> Span:
        """Waits for the card and stops the clock."""
        self.wait()
        seconds = time.perf_counter() - self.began
        peak = reserved = 0
        if self.device.type == "cuda":
            peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return Span(seconds, peak / 2**30, reserved / 2**30, targets)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def card_record(
    spans: Spans, *, targets: int, evaluations: Sequence[Span], evaluated_users: int, model: torch.nn.Module
) -> dict[str, Any]:
    """What a side reports of a case.

    Args:
        spans: its training.
        targets: of an epoch; seconds are scaled to them where a span has others.
        evaluations: of all users; warm-ups are left out.
        evaluated_users: how many that are.
        model: what was trained.
    """
    counted = spans.training[1:]
    return {
        "targets": targets,
        "epochs": [[round(span.seconds, 5), span.targets] for span in counted],
        "epoch_seconds": statistics.median(span.seconds / span.targets for span in counted) * targets,
        "training_peak_gib": max(span.peak_gib for span in spans.training),
        "training_reserved_gib": max(span.reserved_gib for span in spans.training),
        "evaluations": [round(span.seconds, 5) for span in evaluations],
        "evaluation_seconds": statistics.median(span.seconds for span in evaluations),
        "evaluation_peak_gib": max(span.peak_gib for span in evaluations),
        "evaluated_users": evaluated_users,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "precision": torch.get_float32_matmul_precision(),
        "device": str(spans.device),
    }
