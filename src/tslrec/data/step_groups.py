"""Optimizer steps given out several at a time, for a device on which one step is shorter than a trainer's loop.

Shapes: W windows of a step, F fields of a window, S steps of a group, N interactions of the data set.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.batching import RandomBatches
from tslrec.data.static_layouts import StaticLayout, StepShape


class StepGroups(RandomBatches):
    """The batches of `RandomBatches`, as lists of several; an iteration's last list may be shorter.

    A list ends where the number of batches given out in this iteration is a multiple of `size`, so that an iteration
    that is resumed has the same lists as one that was not interrupted.

    Args:
        steps: the batches; what was given out is counted there.
        size: batches in a list.
    """

    def __init__(self, steps: RandomBatches, size: int) -> None:
        super().__init__(steps.num_instances, steps.batch_size, steps.seed, steps.steps_per_epoch)
        self.steps = steps
        self.size = size

    def __len__(self) -> int:
        return -(-len(self.steps) // self.size)

    def __iter__(self) -> Iterator[list[NDArray[np.int64]]]:  # type: ignore[override]
        steps = iter(self.steps)
        for _ in range(self.steps.step // self.size, len(self)):
            yield list(islice(steps, self.size - self.steps.step % self.size))

    def state_dict(self) -> dict[str, int]:
        return self.steps.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps.load_state_dict(state)


class FlatItems:
    """The data set's flat array of item ids, int64 `[N]`, copied to a device once."""

    def __init__(self, items_N: NDArray[np.int32]) -> None:
        self.items_N = torch.from_numpy(items_N.astype(np.int64))

    def on(self, device: torch.device) -> Tensor:
        """The array on a device, which keeps it until another device is asked for."""
        if self.items_N.device != device:
            self.items_N = self.items_N.to(device)
        return self.items_N


class StepGroup:
    """The data of several optimizer steps, run one after the other: what a trainer takes for one batch.

    Args:
        fields_SFW: of each step the windows, see `StaticLayout`; int64.
        shapes: of each step the shapes of its tensors.
        num_targets: targets that count, of all steps.
        items: the data set's items.
    """

    def __init__(self, fields_SFW: Tensor, shapes: tuple[StepShape, ...], num_targets: int, items: FlatItems) -> None:
        self.fields_SFW = fields_SFW
        self.shapes = shapes
        self.num_targets = num_targets
        self.items = items

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.shapes)

    def to(self, device: torch.device) -> StepGroup:
        """The group with its windows on a device. From pinned memory, the copy to a GPU waits for nothing."""
        fields_SFW = self.fields_SFW
        if device.type == "cuda" and fields_SFW.device.type == "cpu":
            fields_SFW = fields_SFW.pin_memory()
        return StepGroup(fields_SFW.to(device, non_blocking=True), self.shapes, self.num_targets, self.items)


def collate_group(layout: StaticLayout, items: FlatItems, steps: list[NDArray[np.int64]]) -> StepGroup:
    """The group of some steps.

    Args:
        layout: of the steps' tensors.
        items: the data set's items.
        steps: of each step the indices of its windows.
    """
    planned = [layout.plan(step) for step in steps]
    fields_SFW = torch.from_numpy(np.stack([each.fields_FW for each in planned]))
    num_targets = sum(each.num_targets for each in planned)
    return StepGroup(fields_SFW, tuple(each.shape for each in planned), num_targets, items)
