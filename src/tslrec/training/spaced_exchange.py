"""How often the ranks of a job ask each other whether anything happened to one of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from tslrec.system import devices
from tslrec.system.processes import any_in_any_process, greatest_of_any_process, rank_and_world_size

SECONDS = 1.0
"""Time between two exchanges of GPUs."""
MOST_STEPS = 50
"""Upper limit of the steps between two exchanges of GPUs."""


class SpacedExchange:
    """Exchanges flags among the processes of a job: at every step on CPUs, about once a second on GPUs.

    The ranks must exchange at the same steps, so that none of them waits for ever: in each exchange they also agree on
    the number of steps until the next one, from the slowest rank's time for a step. Steps that take a second or longer
    are followed by an exchange each. A process that is alone needs none.

    Args:
        most: upper limit of the steps between two exchanges of GPUs; None: `MOST_STEPS`.
    """

    def __init__(self, most: int | None = None) -> None:
        self.most = most or MOST_STEPS
        self.steps = 0
        """Since the last exchange."""
        self.next = 1
        """Steps from one exchange to the next."""
        self.exchanged_at = time.monotonic()

    def any_of(self, happened: Sequence[bool], device: torch.device) -> list[bool]:
        """Which flags are true in any process; all False at a step without an exchange. All ranks call it.

        Args:
            happened: this process's flags; one that stays true is seen at the next exchange.
            device: the device that this process computes on.
        """
        if rank_and_world_size()[1] == 1 or not devices.queues_work(device):
            return any_in_any_process(happened, device)
        self.steps += 1
        if self.steps < self.next:
            return [False] * len(happened)
        now = time.monotonic()
        step_seconds = (now - self.exchanged_at) / self.steps
        numbers = torch.tensor([step_seconds, *(float(flag) for flag in happened)], dtype=torch.float64)
        slowest, *flags = greatest_of_any_process(numbers, device).tolist()
        self.next = max(1, min(self.most, int(SECONDS / slowest) if slowest > 0 else self.most))
        self.steps, self.exchanged_at = 0, now
        return [flag > 0 for flag in flags]
