"""On a GPU the next batches are prepared in the background, in memory from which they are copied while it computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.apply_func import apply_to_collection
from torch import Tensor

from tslrec.data.batching import Batches
from tslrec.system import devices

AHEAD = 4
"""Batches that are prepared before they are asked for."""


def pinned(batch: Any, device: torch.device) -> Any:
    """A batch with its tensors in pinned memory, from which Lightning's transfer to a GPU does not wait.

    Args:
        batch: tensors, in tuples and named tuples of any depth, beside other values.
        device: to which they will go. Without it a process would also begin to use the first GPU.
    """
    if device.type != "cuda":
        return batch
    with torch.cuda.device(device):
        return apply_to_collection(batch, Tensor, Tensor.pin_memory)


class BackgroundBatches(lightning.Callback):
    """Switches the background thread of the data loaders (`Batches.prefetch`) on where a trainer computes on a GPU."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.switch(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.switch(trainer)

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.switch(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.close(trainer)

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.close(trainer)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        self.close(trainer)

    def switch(self, trainer: lightning.Trainer) -> None:
        """Sets how the trainer's loaders are prepared; iterations that run are not changed."""
        device = trainer.strategy.root_device
        ahead = AHEAD if devices.queues_work(device) else 0
        for loader in loaders(trainer):
            loader.prefetch(ahead, lambda batch: pinned(batch, device))

    def close(self, trainer: lightning.Trainer) -> None:
        """Ends the threads of the trainer's loaders."""
        for loader in loaders(trainer):
            loader.close()


def loaders(trainer: lightning.Trainer) -> Iterator[Batches[Any]]:
    """The loaders that the trainer iterates over or has iterated over."""
    for each in (trainer.train_dataloader, trainer.val_dataloaders, trainer.test_dataloaders):
        for loader in each if isinstance(each, list) else [each]:
            if isinstance(loader, Batches):
                yield loader
