"""The step `captured` of the part `scale`: the softmax as a CUDA graph.

Shapes: T targets, I items (row 0 of the table is padding), D size of a user vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_parts.bench import Bench, NotMeasuredError
from gpu_parts.scale_losses import factors
from gpu_parts.scale_market import BEAUTY_ITEMS

if TYPE_CHECKING:
    from torch import Tensor


def captured(bench: Bench) -> None:
    """The loss as a CUDA graph: whether it can be captured, gives the same, and what its launches cost without."""
    import torch

    from tslrec.training.softmax_on_device import softmax_on_device

    user_TD, table_ID, targets_T = factors(bench, bench.sized(BEAUTY_ITEMS, 300), 64)
    weights_T = torch.ones(len(targets_T), device=bench.device)

    def work() -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            return softmax_on_device(user_TD, table_ID, targets_T, weights_T, need_user=True, need_table=True)

    eager = work()
    bench.figure("eager", bench.seconds(work, repeats=bench.sized(20, 1)), "s")
    if not bench.on_card:
        raise NotMeasuredError("a CUDA graph needs a GPU")
    graph = torch.cuda.CUDAGraph()
    bench.synchronize()
    with torch.cuda.graph(graph):
        made = work()
    graph.replay()
    bench.synchronize()
    pairs = [(one, other) for one, other in zip(made, eager, strict=True) if one is not None and other is not None]
    bench.figure("graph_differing", sum(int((one != other).sum()) for one, other in pairs), "count")
    bench.figure("graph", bench.seconds(graph.replay, repeats=20), "s")
