"""The softmax over all items as the card computes it, by the Triton kernel, against the formula in float64.

Shapes: B users, I items and padding, D size of a user vector.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from gpu_parts.bench import Bench, NotMeasuredError
from gpu_parts.check_machine import matmul_precision

if TYPE_CHECKING:
    from torch import Tensor

SIZES = {"beauty": (1024, 12_102, 64), "ml1m": (2048, 3_417, 256), "odd": (300, 100_003, 48)}
"""Users, rows of the table and vector size, by name; rows that are no multiple of anything are the hard case."""

REHEARSED = {"odd": (30, 1_003, 8)}

SCALE = 3.0
"""Standard deviation of the logits, with which the softmax is neither flat nor a single item."""

TOLERANCE = 1e-5
"""Largest relative difference of the loss and of gradients in norm: some dozen roundings of float32."""


def check_kernel(bench: Bench) -> None:
    """Compares loss and gradients in float32 with the formula in float64, and two passes with each other.

    Raises:
        NotMeasuredError: if this version has no kernel.
        RuntimeError: if the kernel cannot be built here, or a difference is above the tolerance.
    """
    if importlib.util.find_spec("tslrec.training.softmax_kernel") is None:
        raise NotMeasuredError("this version has no Triton kernel")
    if bench.on_card:
        from tslrec.training.softmax_on_device import fused_exponentiate

        if fused_exponentiate() is None:
            raise RuntimeError("Triton cannot build the kernel here; the part's log says why")
    largest = 0.0
    with matmul_precision("highest"):
        for name, sizes in bench.sized(SIZES, REHEARSED).items():
            errors, same = compare(bench, *sizes)
            for what, error in errors.items():
                bench.figure(f"{name}_{what}_error", error, "1", aim=TOLERANCE)
            bench.say(f"{name}: the same bits {'again' if same else 'NOT again'} in a second pass")
            largest = max(largest, *errors.values())
    if largest > TOLERANCE:
        raise RuntimeError(f"differs from float64 by {largest:.2g}, more than {TOLERANCE:g}")


def compare(bench: Bench, users: int, rows: int, width: int) -> tuple[dict[str, float], bool]:
    """Relative differences from float64 of the loss and both gradients, and whether two passes have the same bits."""
    import torch
    import torch.nn.functional as F

    from tslrec.training.losses import softmax_loss

    draw = torch.Generator(bench.device).manual_seed(0)
    user_BD = torch.randn(users, width, device=bench.device, generator=draw)
    table_ID = torch.randn(rows, width, device=bench.device, generator=draw) * (SCALE / width**0.5)
    targets_B = torch.randint(1, rows, (users,), device=bench.device, generator=draw)

    def passed(dtype: torch.dtype) -> tuple[Tensor, ...]:
        user, table = (each.detach().to(dtype, copy=True).requires_grad_() for each in (user_BD, table_ID))
        if dtype == torch.float64:
            loss = F.cross_entropy(user @ table[1:].T, targets_B - 1, reduction="sum")
        else:
            loss = softmax_loss(user, table, targets_B)
        return loss.detach(), *torch.autograd.grad(loss, (user, table))

    first, second, expected = passed(torch.float32), passed(torch.float32), passed(torch.float64)
    errors = {
        what: float((found.double() - wanted).norm() / wanted.norm())
        for what, found, wanted in zip(("loss", "user", "table"), first, expected, strict=True)
    }
    return errors, all(torch.equal(*each) for each in zip(first, second, strict=True))
