"""The gradient of a sum, a summand at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


class GradientAtHand(torch.autograd.Function):
    """A number whose gradients were computed before it entered the graph."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor | None], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grads
        gradients, ctx.gradients = ctx.gradients, None
        return None, None, *(None if gradient is None else gradient * scale for gradient in gradients)


def summed(losses: Iterable[Tensor], leaves: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """The sum of losses, each differentiated, and its activations freed, before the next is computed.

    Memory then grows with the largest summand instead of the sum.

    Args:
        losses: one or more, computed as they are asked for, which share no graph. Each depends on every leaf.
        leaves: what they are computed from.
        inputs: what the sum depends on in their stead: for each leaf itself, or the tensor that it was detached from.
    """
    total: Tensor | None = None
    gradients: tuple[Tensor, ...] = ()
    for loss in losses:
        new = torch.autograd.grad(loss, leaves)
        if total is None:
            total, gradients = loss.detach(), new
        else:
            total = total + loss.detach()
            torch._foreach_add_(gradients, new)
    assert total is not None
    result: Tensor = GradientAtHand.apply(total, gradients, *inputs)
    return result
