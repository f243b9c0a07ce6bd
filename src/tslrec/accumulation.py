"""The gradient of a sum, a summand at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tslrec.backbones.dropout import drawing_from
from tslrec.teams import at_once, evenly, number_of_teams


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


def summed(losses: Sequence[Callable[[], Tensor]], leaves: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """The sum of losses, each differentiated, and its activations freed, before the next is computed.

    Memory then grows with the largest summand instead of the sum.

    Args:
        losses: one or more, computed when they are called, which share no graph. Each depends on every leaf.
        leaves: what they are computed from.
        inputs: what the sum depends on in their stead: for each leaf itself, or the tensor that it was detached from.
    """
    return at_hand([differentiated(losses, leaves)], inputs)


def summed_by_teams(
    losses: Sequence[Callable[[], Tensor]], costs: Sequence[int], leaves: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Tensor:
    """`summed` on a CPU, where each team of threads computes some of the losses, one after the other.

    Each loss has a generator for its dropout, seeded by the default one, so the same number of threads gives the same
    bits.

    Args:
        losses: as for `summed`; all that they draw is drawn by `Dropout`.
        costs: how much there is to compute for each, in any unit.
        leaves: as for `summed`.
        inputs: as for `summed`.
    """
    seeds = torch.empty(len(losses), dtype=torch.int64).random_().tolist()

    def with_own_draws(place: int) -> Tensor:
        with drawing_from(torch.Generator().manual_seed(seeds[place])):
            return losses[place]()

    shares = [[partial(with_own_draws, place) for place in places] for places in evenly(costs, number_of_teams())]
    return at_hand(at_once([partial(differentiated, share, leaves) for share in shares]), inputs)


def differentiated(
    losses: Iterable[Callable[[], Tensor]], leaves: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The sum of losses and its gradients, a loss at a time."""
    total: Tensor | None = None
    gradients: tuple[Tensor, ...] = ()
    for compute in losses:
        loss = compute()
        new = torch.autograd.grad(loss, leaves)
        if total is None:
            total, gradients = loss.detach(), new
        else:
            total = total + loss.detach()
            torch._foreach_add_(gradients, new)
    assert total is not None
    return total, gradients


def at_hand(sums: Sequence[tuple[Tensor, tuple[Tensor, ...]]], inputs: Sequence[Tensor]) -> Tensor:
    """The sum of sums, as a number in the graph of what it depends on."""
    (total, gradients), *others = sums
    for other, new in others:
        total = total + other
        torch._foreach_add_(gradients, new)
    result: Tensor = GradientAtHand.apply(total, gradients, *inputs)
    return result
