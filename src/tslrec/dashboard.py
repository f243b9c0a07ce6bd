"""Weights & Biases, where it is asked for: one run per method run, grouped by method."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tslrec.config import Config

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class Dashboard(Protocol):
    """Where curves and the final table go besides the CSV logs."""

    def loggers(self, stage: str) -> list[Logger]: ...

    def finish(self, row: Mapping[str, Any]) -> None: ...


class NoDashboard:
    """CSV logs only."""

    def loggers(self, stage: str) -> list[Logger]:
        return []

    def finish(self, row: Mapping[str, Any]) -> None:
        return None


class WandbDashboard:
    """A Weights & Biases run; offline where there is no account."""

    def __init__(self, config: Config, folder: Path) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=config.logger.project,
            group=config.method.name,
            name=f"{config.method.name}-{config.data.name}-{config.model['name']}-seed{config.seed}",
            config=asdict(config),
            dir=str(folder),
            mode=None if has_account() else "offline",
            settings=wandb.Settings(console="off", silent=True),
            reinit="finish_previous",
        )

    def loggers(self, stage: str) -> list[Logger]:
        from lightning.pytorch.loggers import WandbLogger

        return [WandbLogger(experiment=self.run, prefix=stage)]

    def finish(self, row: Mapping[str, Any]) -> None:
        """Logs the run's row of the closing table and closes the run."""
        import wandb

        metrics = {name: value for name, value in row.items() if isinstance(value, int | float)}
        self.run.log({"final": wandb.Table(columns=list(metrics), data=[list(metrics.values())])})
        self.run.summary.update(metrics)
        self.run.finish()


def has_account() -> bool:
    """Whether W&B can log in, or was told how to behave by `WANDB_MODE`."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False


def open_dashboard(config: Config, folder: Path) -> Dashboard:
    return WandbDashboard(config, folder) if config.logger.kind == "wandb" else NoDashboard()
