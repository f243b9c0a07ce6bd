"""Builds a stage's Lightning trainer: device, strategy, CSV log, progress bar and checkpoints."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from rich import get_console
from torch.nn.parallel import DistributedDataParallel

from tslrec.settings.trainer import TrainerConfig
from tslrec.system.meter import Meter
from tslrec.system.warning_filters import install_warning_filters
from tslrec.training.background_batches import BackgroundBatches
from tslrec.training.checkpoint_io import CheckpointFiles
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.csv_log import CsvLog
from tslrec.training.matmul_precision import MatmulPrecision
from tslrec.training.nonfinite_guard import NonFiniteGuard
from tslrec.training.resuming import Resuming

WIDTH_OF_ALL, WIDTH_OF_TIMES = 100, 60
"""Characters that a terminal needs for the whole progress bar, and for the times; a narrower one gets less of it, since
rich would cut figures."""

NUMBERS_SECONDS = 0.5
"""Time between two readings of the numbers beside the progress bar."""


class StageProgress(RichProgressBar):
    """Lightning's progress bar with the stage's name in it.

    Args:
        stage: the name.
    """

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage
        self.read_at = -math.inf

    def _update_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Lightning asks for it after each step; on a GPU each reading waits for the device."""
        if time.monotonic() - self.read_at >= NUMBERS_SECONDS:
            super()._update_metrics(trainer, pl_module)
            self.read_at = time.monotonic()

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        """Adds the loss of the last step, where the module logs one.

        Logged with `prog_bar=True`, it would be read twice in every step, shown or not.
        """
        loss = trainer.callback_metrics.get("loss")
        return {**super().get_metrics(trainer, pl_module), **({} if loss is None else {"loss": float(loss)})}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.read_at = -math.inf
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.read_at = -math.inf
        super().on_train_epoch_end(trainer, pl_module)

    def configure_columns(self, trainer: lightning.Trainer) -> list[Any]:
        columns = super().configure_columns(trainer)
        width = get_console().width
        if width >= WIDTH_OF_ALL:
            return columns
        description, _, batches, times, _ = columns
        return [description, batches, times] if width >= WIDTH_OF_TIMES else [description, batches]

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self.stage} · {super()._get_train_description(current_epoch).lower()}"

    @property
    def validation_description(self) -> str:
        return f"{self.stage} · validation"

    @property
    def test_description(self) -> str:
        return f"{self.stage} · test"


class OwnDraws(lightning.Callback):
    """Gives each rank a random stream of its own for dropout masks and negatives.

    Until training starts all ranks have the same seed, so that they build the same model.
    """

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)


class StageTrainers:
    """Makes the Lightning trainers of one stage: called with what a training needs, it returns a trainer.

    Args:
        config: the `trainer` section.
        stage: the stage's name, for the progress bar and messages.
        folder: of the stage; the CSV log is `log/metrics.csv` in it.
        loggers: the tracker's loggers, beside the CSV log.
        checkpoints: the folder of the checkpoints from which an interrupted training resumes.
        meter: the stage's cost so far, written into the checkpoints.
    """

    def __init__(
        self,
        config: TrainerConfig,
        stage: str,
        folder: Path,
        loggers: Sequence[Logger] = (),
        *,
        checkpoints: Checkpoints,
        meter: Meter,
    ) -> None:
        self.config = config
        self.stage = stage
        self.folder = folder
        self.loggers = list(loggers)
        self.checkpoints = checkpoints
        self.meter = meter

    def __call__(
        self,
        *,
        max_epochs: int,
        callbacks: Sequence[lightning.Callback] = (),
        llm: bool = False,
        gradient_clip: float | None = None,
    ) -> lightning.Trainer:
        install_warning_filters()
        strategy = self.config.llm_strategy if llm else self.config.strategy
        log = CsvLog(self.folder)
        remedy = "lower the learning rate" + (", or use another llm.dtype" if llm else "")
        own: list[lightning.Callback] = [
            OwnDraws(),
            MatmulPrecision(self.config.matmul_precision),
            BackgroundBatches(),
            NonFiniteGuard(self.stage, remedy),
            StageProgress(self.stage),
        ]
        if self.checkpoints is not None:
            seconds = self.config.checkpoint_seconds
            meter = self.meter or Meter()
            # The last callback, so that a checkpoint holds what the others did in the same step.
            own.append(Resuming(self.stage, self.checkpoints, every_seconds=seconds, stage_log=log, meter=meter))
        trainer = lightning.Trainer(
            accelerator=self.config.accelerator,
            devices=self.config.devices,
            num_nodes=self.config.num_nodes,
            strategy=instantiate(strategy) if isinstance(strategy, dict) else strategy,
            precision=self.config.llm_precision if llm else self.config.precision,  # type: ignore[arg-type]
            max_epochs=max_epochs,
            callbacks=[*callbacks, *own],
            plugins=[CheckpointFiles()],
            logger=[log, *self.loggers],
            gradient_clip_val=gradient_clip,
            # On a GPU also False: it ends what another stage of the same process has begun.
            deterministic=self.config.deterministic if self.config.on_gpu else None,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        keep_buffers_here(trainer.strategy)
        return trainer


def keep_buffers_here(strategy: Strategy) -> None:
    """Keeps DDP, whatever name it was chosen by, from sending buffers from rank 0 to the others before every step.

    Our buffers never change and are equal on all ranks; among them are the knowledge embeddings of the whole catalogue.
    A strategy that was given this setting keeps it.
    """
    if isinstance(strategy, DDPStrategy):
        strategy._ddp_kwargs.setdefault(buffer_setting(), False)


def buffer_setting() -> str:
    """DDP's setting that sends buffers from rank 0 before every step; it was renamed after torch 2.11."""
    names = inspect.signature(DistributedDataParallel.__init__).parameters
    # By its older name it also sends them at the start, where ours are equal too.
    return "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
