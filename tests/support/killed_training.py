"""A callback that ends a training in the middle, as SIGKILL would."""

from __future__ import annotations

from typing import Any

import lightning


class KilledError(Exception):
    """Takes the place of SIGKILL."""


class Kill(lightning.Callback):
    """Kills a training at the beginning of the batch that begins at or after a step.

    Args:
        step: the step.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step >= self.step:
            raise KilledError
