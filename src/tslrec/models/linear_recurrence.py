"""The linear recurrence `h_t = u_t + λ h_{t-1}` with a complex λ per channel, forward and backward, in two forms.

A complex number is two real ones in the last dimension, so that modules hold no complex parameters.

- By steps, for a CPU: sequences in the `StepOrder`, one product per step over all sequences that have an item there.
  It computes each position once and no padding, and each step reads and writes contiguous memory.
- By doubling, for any device (Hillis and Steele 1986): after the round with the offset k, a state sums the inputs of
  the 2k latest positions. It takes log2 of the longest sequence as many rounds over all positions, and no shape in it
  depends on a value, which a GPU's graph and an exported graph ask for.

The gradient of the inputs is the same recurrence backwards, with the conjugate of λ; so only the states are kept.

Shapes: B rows, L positions of a row, T positions of all sequences, H channels, 2 real and imaginary part.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def states_by_steps(inputs_TH2: Tensor, decay_H2: Tensor, counts: Sequence[int]) -> Tensor:
    """The states at all positions, `[T, H, 2]`, in the order of steps.

    Args:
        inputs_TH2: u.
        decay_H2: λ; the states have its precision, and are computed in float32 at least.
        counts: see `StepOrder`.
    """
    exact_H2 = at_least_float32(decay_H2)
    states: Tensor = StatesBySteps.apply(inputs_TH2.to(exact_H2.dtype), exact_H2, counts)
    return states.to(decay_H2.dtype)


def states_by_doubling(inputs_BLH2: Tensor, decay_H2: Tensor, longest: int, positions_BL: Tensor | None) -> Tensor:
    """The states at all positions, `[B, L, H, 2]`.

    Args:
        inputs_BLH2: u.
        decay_H2: λ; the states have its precision, and are computed in float32 at least.
        longest: no sequence has more items.
        positions_BL: of rows that hold several sequences, the position within the sequence (`Packing`); None: a row
            holds one.
    """
    exact_H2 = at_least_float32(decay_H2)
    inputs_BLH2 = inputs_BLH2.to(exact_H2.dtype)
    if torch.compiler.is_exporting():
        return doubled(inputs_BLH2, exact_H2, longest, positions_BL, backwards=False).to(decay_H2.dtype)
    states: Tensor = StatesByDoubling.apply(inputs_BLH2, exact_H2, longest, positions_BL)
    return states.to(decay_H2.dtype)


def at_least_float32(decay_H2: Tensor) -> Tensor:
    """λ in float32, or in its own precision if that is higher: PyTorch has no complex numbers of 16 bits for it."""
    return decay_H2.to(torch.promote_types(decay_H2.dtype, torch.float32))


class StatesBySteps(torch.autograd.Function):
    """`states_by_steps` and its gradients."""

    @staticmethod
    def forward(ctx: Any, inputs_TH2: Tensor, decay_H2: Tensor, counts: Sequence[int]) -> Tensor:
        states = inputs_TH2.clone(memory_format=torch.contiguous_format)
        decay_H = torch.view_as_complex(decay_H2.contiguous())
        parts = torch.view_as_complex(states).split(list(counts))
        for before, now in pairwise(parts):
            now.addcmul_(before[: len(now)], decay_H)
        ctx.counts = counts
        ctx.save_for_backward(states, decay_H2)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        states, decay_H2 = ctx.saved_tensors
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        conjugate_H = torch.view_as_complex(decay_H2.contiguous()).conj().resolve_conj()
        parts = torch.view_as_complex(grad).split(list(ctx.counts))
        for before, now in zip(parts[-2::-1], parts[:0:-1], strict=True):
            before[: len(now)].addcmul_(now, conjugate_H)
        previous = torch.view_as_complex(states).split(list(ctx.counts))
        held = [each[:count] for each, count in zip(previous, ctx.counts[1:], strict=False)]
        if not held:
            return grad, torch.zeros_like(decay_H2), None
        return grad, decay_gradient(torch.view_as_complex(grad)[ctx.counts[0] :], torch.cat(held)), None


class StatesByDoubling(torch.autograd.Function):
    """`states_by_doubling` and its gradients."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, decay_H2: Tensor, longest: int, positions_BL: Tensor | None) -> Tensor:
        states = doubled(inputs, decay_H2, longest, positions_BL, backwards=False)
        ctx.longest = longest
        ctx.save_for_backward(states, decay_H2, positions_BL)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states, decay_H2, positions_BL = ctx.saved_tensors
        conjugate_H2 = torch.stack([decay_H2[:, 0], -decay_H2[:, 1]], dim=-1)
        grad = doubled(grads[0].contiguous(), conjugate_H2, ctx.longest, positions_BL, backwards=True)
        later = grad[:, 1:] if positions_BL is None else grad[:, 1:] * continues(positions_BL, 1)[:, 1:]
        grad_decay_H2 = decay_gradient(torch.view_as_complex(later), torch.view_as_complex(states[:, :-1]))
        return grad, grad_decay_H2, None, None


def decay_gradient(grad: Tensor, previous: Tensor) -> Tensor:
    """The gradient of λ, `[H, 2]`.

    Args:
        grad: complex, the gradient of the inputs at positions that are not the first of their sequence, `[..., H]`.
        previous: complex, the states at the positions before them.
    """
    return torch.view_as_real((grad * previous.conj()).flatten(0, -2).sum(dim=0))


def doubled(
    inputs_BLH2: Tensor, decay_H2: Tensor, longest: int, positions_BL: Tensor | None, *, backwards: bool
) -> Tensor:
    """The recurrence by doubling, in real numbers.

    Args:
        inputs_BLH2: u.
        decay_H2: λ.
        longest: see `states_by_doubling`.
        positions_BL: see `states_by_doubling`.
        backwards: `h_t = u_t + λ h_{t+1}` instead.
    """
    states, length, offset = inputs_BLH2, inputs_BLH2.shape[1], 1
    while offset < longest:
        if backwards:
            held = states if positions_BL is None else states * continues(positions_BL, offset)
            moved = F.pad(held, (0, 0, 0, 0, 0, offset))[:, offset:]
        else:
            moved = F.pad(states, (0, 0, 0, 0, offset, 0))[:, :length]
            moved = moved if positions_BL is None else moved * continues(positions_BL, offset)
        real_H, imaginary_H = decay_H2.unbind(dim=-1)
        # (a + bi)(x + yi) = a (x + yi) + b (-y + xi)
        turned_H2 = torch.stack([-imaginary_H, imaginary_H], dim=-1)
        states = states + moved * real_H[:, None] + moved.flip(-1) * turned_H2
        squared_H = real_H.square() - imaginary_H.square()
        decay_H2 = torch.stack([squared_H, 2 * real_H * imaginary_H], dim=-1)
        offset *= 2
    return states


def continues(positions_BL: Tensor, offset: int) -> Tensor:
    """Whether the position that is `offset` earlier belongs to the same sequence, bool `[B, L, 1, 1]`."""
    return (positions_BL >= offset)[..., None, None]
