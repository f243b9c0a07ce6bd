"""The steps `losses` and `peers` of the part `scale`: the ways to compute the loss, timed and compared with ours."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gpu_parts.bench import Bench, NotMeasuredError, matmul_precision
from gpu_parts.scale_losses import Loss, cut_cross_entropy, factors, liger, ours, ours_without_kernel, pytorch
from gpu_parts.scale_market import sizes
from gpu_parts.scale_softmax import say_kernel, share

if TYPE_CHECKING:
    from torch import Tensor


def losses(bench: Bench) -> None:
    """The loss and its gradients alone: ours, ours without its kernel, PyTorch's cross-entropy."""
    import torch

    say_kernel(bench)
    given = factors(bench, sizes(bench)[1], 64)
    found = time_loss(bench, "ours", ours, given)
    assert found is not None
    bench.figure("ours_share", share(bench, 3, 64, bench.figures["ours_loss"]["value"]), "%")
    again = ours(*given)
    differing = sum(int((one != other).sum()) for one, other in zip(again, found, strict=True))
    bench.figure("ours_again_differing", differing, "count")
    del again
    with matmul_precision("high"):
        rounded = time_loss(bench, "ours_tf32", ours, given)
        bench.figure("ours_tf32_share", share(bench, 3, 64, bench.figures["ours_tf32_loss"]["value"]), "%")
    for name, other in (("tf32", rounded), ("without_kernel", time_loss(bench, "plain", ours_without_kernel, given))):
        assert other is not None
        compare(bench, name, other, found)
    del rounded, other
    if bench.on_card:
        # What earlier ways left in the allocator's cache would be missing here.
        torch.cuda.empty_cache()
    whole = time_loss(bench, "pytorch", pytorch, given)
    if whole is not None:
        compare(bench, "pytorch", whole, found)


def peers(bench: Bench) -> None:
    """The two known kernels, where they are installed."""
    ways = {"liger_kernel": liger, "cut_cross_entropy": cut_cross_entropy}
    missing = [name for name in ways if find_spec(name) is None]
    if not bench.on_card or len(missing) == len(ways):
        raise NotMeasuredError(f"not installed: {', '.join(missing)}" if missing else "their kernels need a GPU")
    given = factors(bench, sizes(bench)[1], 64)
    wanted = ours(*given)
    for name, way in ways.items():
        if name in missing:
            bench.say(f"{name}: not installed")
            continue
        found = time_loss(bench, name, way, given)
        if found is not None:
            compare(bench, name, found, wanted)


def time_loss(bench: Bench, name: str, way: Callable[..., Loss], given: tuple[Tensor, ...]) -> Loss | None:
    """Figures of one way to compute the loss and its gradients: seconds, and the memory that it needs beside its input.

    Returns:
        What it gave; None if the card is too small for it.
    """
    import torch

    before = torch.cuda.memory_allocated() / 2**30 if bench.on_card else 0.0
    try:
        with bench.peak_memory() as peak:
            found = way(*given)
            bench.synchronize()
        seconds = bench.seconds(lambda: way(*given), repeats=bench.sized(4, 1), warm_up=0)
    except torch.OutOfMemoryError:
        bench.say(f"{name}: does not fit this card")
        return None
    bench.figure(f"{name}_loss", seconds, "s")
    bench.figure(f"{name}_memory", peak["card"] - before, "GiB")
    return found


def compare(bench: Bench, name: str, found: Loss, wanted: Loss) -> None:
    """Figures of how far a way is from another: of the loss, relative, and of gradients, relative to the largest."""
    loss, *gradients = (
        float((one - other).abs().max() / other.abs().max()) for one, other in zip(found, wanted, strict=True)
    )
    bench.figure(f"{name}_loss_difference", loss, "relative")
    bench.figure(f"{name}_gradient_difference", max(gradients), "relative")
