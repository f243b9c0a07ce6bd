"""Reads numbers from a device one call late, so that the host never waits for work that it has just queued."""

from __future__ import annotations

import torch
from torch import Tensor


class DelayedCopy:
    """Copies of a small tensor; each call gives the copy that the call before has started."""

    def __init__(self) -> None:
        self.waiting: tuple[Tensor, torch.cuda.Event | None] | None = None

    def exchange(self, numbers: Tensor) -> Tensor | None:
        """Starts to copy a tensor to the host, and gives the copy before that; None in the first call.

        On a GPU the call waits until the device has finished what was queued before the earlier call, so the host is
        never more than two calls ahead.
        """
        before, self.waiting = self.waiting, started_copy(numbers)
        if before is None:
            return None
        copy, done = before
        if done is not None:
            done.synchronize()
        return copy


def started_copy(numbers: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A copy on the host, and the event at which it is complete; None if it is so already."""
    if numbers.device.type != "cuda":
        return numbers.detach().cpu().clone(), None
    copy = torch.empty_like(numbers, device="cpu", pin_memory=True)
    copy.copy_(numbers.detach(), non_blocking=True)
    done = torch.cuda.Event()
    done.record()
    return copy, done
