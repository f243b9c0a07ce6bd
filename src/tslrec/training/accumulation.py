"""The gradient of a sum of losses, computed one loss at a time, so that memory grows with the largest loss alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tslrec.models.dropout import drawing_from
from tslrec.training.thread_teams import balance, number_of_teams, run_parallel


class PrecomputedGradient(torch.autograd.Function):
    """Puts a value whose gradients are already known into the autograd graph; its backward pass only scales them."""

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
    """The sum of losses; each is differentiated, and its activations are freed, before the next one is computed.

    Memory then grows with the largest loss instead of the sum of all.

    Args:
        losses: at least one; each computes a loss when it is called. They share no graph, and each depends on every
            leaf.
        leaves: the leaf tensors from which the losses are computed.
        inputs: for each leaf, the tensor that gets its gradient: the leaf itself, or the one it was detached from.

    Returns:
        The sum, differentiable with respect to `inputs`.
    """
    return with_gradients([sum_and_gradients(losses, leaves)], inputs)


def summed_by_teams(
    losses: Sequence[Callable[[], Tensor]], costs: Sequence[int], leaves: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Tensor:
    """`summed` on a CPU by several teams of threads, each of which computes some of the losses, one after the other.

    Each loss has its own generator for dropout, seeded from the default generator, so that the same number of threads
    gives the same bits.

    Args:
        losses: see `summed`; they may draw random numbers only through `Dropout`.
        costs: the amount of computation of each loss, in any unit.
        leaves: see `summed`.
        inputs: see `summed`.

    Returns:
        See `summed`.
    """
    seeds = torch.empty(len(losses), dtype=torch.int64).random_().tolist()

    def with_own_draws(place: int) -> Tensor:
        with drawing_from(torch.Generator().manual_seed(seeds[place])):
            return losses[place]()

    shares = [[partial(with_own_draws, place) for place in places] for places in balance(costs, number_of_teams())]
    return with_gradients(run_parallel([partial(sum_and_gradients, share, leaves) for share in shares]), inputs)


def sum_and_gradients(
    losses: Iterable[Callable[[], Tensor]], leaves: Sequence[Tensor]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The sum of losses, detached, and its gradient for each leaf; one loss after the other."""
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


def with_gradients(sums: Sequence[tuple[Tensor, tuple[Tensor, ...]]], inputs: Sequence[Tensor]) -> Tensor:
    """The total of several sums with their gradients, as one value in the graph of `inputs`."""
    (total, gradients), *others = sums
    for other, new in others:
        total = total + other
        torch._foreach_add_(gradients, new)
    result: Tensor = PrecomputedGradient.apply(total, gradients, *inputs)
    return result
