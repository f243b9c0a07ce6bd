"""How the softmax over all items runs here: with its kernel or without, and at what share of the card's own rate."""

from __future__ import annotations

from gpu_parts.bench import Bench
from gpu_parts.scale_market import sizes, targets_of


def say_kernel(bench: Bench) -> None:
    """Says whether the Triton kernel runs here; the figures mean something else without it."""
    from tslrec.training.softmax_on_device import fused_exponentiate

    fused = bench.on_card and fused_exponentiate() is not None
    bench.say("softmax: Triton kernel" if fused else "softmax: PyTorch's own operations, no Triton kernel")


def share(bench: Bench, products: int, width: int, seconds: float) -> float:
    """Percent of the card's own rate of float32 products: those over all items, for a step's targets."""
    flops = 2 * products * targets_of(bench) * sizes(bench)[1] * width
    return 100 * flops / seconds / 1e12 / bench.product_rate("float32")
