"""How a GPU rounds the factors of float32 products: coarser in training steps where that is wanted, never elsewhere."""

from __future__ import annotations

from typing import Any

import lightning
import torch

from tslrec.system import devices

HIGHEST = "highest"
"""Products of float32 are computed in float32."""


class MatmulPrecision(lightning.Callback):
    """Sets the precision of float32 products for the steps of a training on a GPU.

    Validations and tests compute with `highest`, so that user vectors, item tables and scores are those of the weights
    whatever precision they were trained in. cuDNN's convolutions and recurrent layers, which would use TF32 by default,
    follow the setting. What was set before is restored at the end, also after an error: the next stage starts from it.

    Args:
        precision: `highest`, `high` or `medium`, as `torch.set_float32_matmul_precision` takes it.
    """

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self.before: tuple[str, bool] | None = None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if devices.queues_work(trainer.strategy.root_device):
            self.before = current()
            choose(HIGHEST)

    def on_train_start(self, *_: Any, **__: Any) -> None:
        self.choose(self.precision)

    def on_validation_start(self, *_: Any, **__: Any) -> None:
        self.choose(HIGHEST)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self.choose(self.precision)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.choose(HIGHEST)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        self.restore()

    def on_exception(self, *_: Any, **__: Any) -> None:
        self.restore()

    def choose(self, precision: str) -> None:
        """Sets a precision, where it acts."""
        if self.before is not None:
            choose(precision)

    def restore(self) -> None:
        """Sets what was set before."""
        if self.before is not None:
            precision, cudnn = self.before
            choose(precision, cudnn=cudnn)
            self.before = None


def current() -> tuple[str, bool]:
    """The precision of products, and whether cuDNN uses TF32."""
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def choose(precision: str, *, cudnn: bool | None = None) -> None:
    """Sets the precision of products, and cuDNN's.

    Args:
        precision: see `MatmulPrecision`.
        cudnn: whether cuDNN uses TF32; None: where products do.
    """
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != HIGHEST if cudnn is None else cudnn
