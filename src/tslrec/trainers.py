"""Builds a stage's Lightning trainer: device and strategy from the configuration, logs and progress for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy

from tslrec.checkpoints import Checkpoints
from tslrec.config import TrainerConfig
from tslrec.finite import FiniteSteps
from tslrec.measuring import Meter
from tslrec.quiet import quieten
from tslrec.resuming import Resuming
from tslrec.stage_log import StageLog
from tslrec.state_files import StateFiles


class StageProgress(RichProgressBar):
    """Lightning's progress bar, naming the stage."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self.stage} · {super()._get_train_description(current_epoch).lower()}"

    @property
    def validation_description(self) -> str:
        return f"{self.stage} · validation"

    @property
    def test_description(self) -> str:
        return f"{self.stage} · test"


class OwnDraws(lightning.Callback):
    """Lets each process draw its own dropout masks and negatives: seeded alike, they have built the same model."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.global_rank > 0:
            torch.manual_seed(torch.initial_seed() + trainer.global_rank)


class StageTrainers:
    """Makes the trainers of one stage (see `tslrec.stages.context.MakeTrainer`).

    Args:
        config: the trainer section.
        stage: names the progress bar.
        folder: where the CSV logs go: `log/metrics.csv`.
        dashboards: further loggers.
        checkpoints: where an interrupted training goes on; None keeps none.
        meter: what the stage costs.
    """

    def __init__(
        self,
        config: TrainerConfig,
        stage: str,
        folder: Path,
        dashboards: Sequence[Logger] = (),
        *,
        checkpoints: Checkpoints | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.config = config
        self.stage = stage
        self.folder = folder
        self.dashboards = list(dashboards)
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
        quieten()
        strategy = self.config.llm_strategy if llm else self.config.strategy
        log = StageLog(self.folder)
        remedy = "lower the learning rate" + (", or use another llm.dtype" if llm else "")
        own: list[lightning.Callback] = [OwnDraws(), FiniteSteps(self.stage, remedy), StageProgress(self.stage)]
        if self.checkpoints is not None:
            seconds = self.config.checkpoint_seconds
            meter = self.meter or Meter()
            # Last, so that what it writes holds what the others did in the same step.
            own.append(Resuming(self.stage, self.checkpoints, every_seconds=seconds, stage_log=log, meter=meter))
        return lightning.Trainer(
            accelerator=self.config.accelerator,
            devices=self.config.devices,
            num_nodes=self.config.num_nodes,
            strategy=make_strategy(strategy),
            precision=self.config.llm_precision if llm else self.config.precision,  # type: ignore[arg-type]
            max_epochs=max_epochs,
            callbacks=[*callbacks, *own],
            plugins=[StateFiles()],
            logger=[log, *self.dashboards],
            gradient_clip_val=gradient_clip,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )


def make_strategy(setting: Any) -> Any:
    """Lightning's strategy for a `strategy` of the configuration: a name, or a section with a `_target_`."""
    if isinstance(setting, dict):
        return instantiate(setting)
    if setting == "ddp":
        # Our buffers never change and are equal everywhere. DDP would send them, such as the knowledge embeddings of
        # the whole catalogue, from the first process to the others before every step.
        return DDPStrategy(forward_sync_buffers=False)
    return setting
