"""What differs between a CPU and a GPU for the code around a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def queues_work(device: torch.device) -> bool:
    """Whether a device works through a queue while Python goes on: reading a number then waits for the whole queue.

    True of CUDA. Tests replace this function, so that the code for GPUs runs on a CPU.

    Args:
        device: of a tensor or a trainer.
    """
    return device.type == "cuda"
