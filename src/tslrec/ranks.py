"""The processes of a job: which of them this is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def process_place() -> tuple[int, int]:
    """This process's rank and how many there are, in the training that runs now."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def in_any_process(happened: Tensor) -> bool:
    """Whether something happened in any of the processes, which then all know: none is left waiting for another.

    Args:
        happened: a single bool, on the device that this process computes on.
    """
    import torch.distributed

    if process_place()[1] > 1:
        happened = happened.int()
        torch.distributed.all_reduce(happened, torch.distributed.ReduceOp.MAX)
    return bool(happened)
