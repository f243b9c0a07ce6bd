"""Dropout that draws few random numbers, so that it costs little on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 2**16
"""Probabilities are rounded to a multiple of `1 / STEPS`."""

generator: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)
"""The random generator of this thread's dropout; None: torch's default generator."""


class Dropout(nn.Module):
    """Sets each number to zero with probability `p` and scales the others by 1 / (1 - p), in training only.

    On a CPU, `torch.nn.Dropout` draws one random number per element, and spends ten times as long on drawing as on
    multiplying. Here one draw of 64 bits serves four elements, which quarters the total time. The draws come from
    torch's default generator, whose state a resumed run restores, or on a CPU from the generator that `drawing_from`
    sets. On a GPU, torch's own dropout is used.

    Args:
        p: probability of dropping an element, in [0, 1); rounded to a multiple of `1 / STEPS` on a CPU.

    Raises:
        ValueError: if `p` is outside [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"a dropout probability must be in [0, 1), not {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        return x * keep_mask(x, self.p)

    def extra_repr(self) -> str:
        return f"p={self.p}"


@contextmanager
def drawing_from(own: torch.Generator) -> Iterator[None]:
    """While active, this thread's dropout draws from the given generator.

    Threads that share a generator draw from it in an order that differs from run to run.

    Args:
        own: the thread's generator.
    """
    token = generator.set(own)
    try:
        yield
    finally:
        generator.reset(token)


def keep_mask(x: Tensor, p: float) -> Tensor:
    """A random tensor in the shape and dtype of `x`: 0 with probability `p`, 1 / (1 - p) elsewhere."""
    dropped = min(round(p * STEPS), STEPS - 1)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator.get())
    draws_16bit = draws.view(torch.int16)[: x.numel()].view(x.shape)
    # Write numbers at once: writing booleans and converting them takes five times as long.
    kept = torch.ge(draws_16bit, dropped - STEPS // 2, out=torch.empty_like(x))
    return kept.mul_(STEPS / (STEPS - dropped))
