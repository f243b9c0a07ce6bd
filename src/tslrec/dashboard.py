"""Where curves and the closing row of a run go beside the CSV logs: nowhere, to Weights & Biases, or to TensorBoard.

A dashboard's run is a method's run. Its identity is known before anything is computed and is the same when the command
is run again, so a run that was killed goes on under its name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tslrec.artifacts import KEY_LENGTH, Artifact
from tslrec.config import Config
from tslrec.trial import CELL

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


@dataclass(frozen=True)
class RunIdentity:
    """What tells a method's run from others.

    Attributes:
        method: its name.
        data: the data set's name.
        model: the backbone's name.
        preset: the name of the set of numbers.
        seed: the run's.
        key: of all that determines its stages.
        sweep: the name of the sweep that it is a cell of; None outside of one.
    """

    method: str
    data: str
    model: str
    preset: str
    seed: int
    key: str
    sweep: str | None = None

    @classmethod
    def of(cls, config: Config, key: str, environment: Mapping[str, str] = os.environ) -> RunIdentity:
        """The identity of the run of a configuration, in this process's sweep."""
        sweep = Path(environment[CELL]).parent.parent.name if CELL in environment else None
        model = str(config.model["name"])
        return cls(config.method.name, config.data.name, model, config.preset, config.seed, key, sweep)

    @property
    def name(self) -> str:
        """What a person reads."""
        return f"{self.method}-{self.data}-{self.model}-{self.preset}-seed{self.seed}"

    @property
    def id(self) -> str:
        """Letters and digits; a sweep's run is another than the same run outside of it."""
        if self.sweep is None:
            return self.key
        return hashlib.sha256(f"{self.sweep} {self.key}".encode()).hexdigest()[:KEY_LENGTH]


class Dashboard(AbstractContextManager["Dashboard"]):
    """CSV logs only; the others override what they show."""

    def loggers(self, stage: str) -> list[Logger]:
        """Where a stage's training logs its curves."""
        return []

    def produced(self, stage: str, artifact: Artifact) -> None:
        """Called with each stage's result."""

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """Called with the run's row of the closing table."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Called however the run ends."""


def open_dashboard(config: Config, identity: RunIdentity, folder: Path) -> Dashboard:
    """The configured dashboard, whose files lie below a folder."""
    match config.logger.kind:
        case "wandb":
            from tslrec.dashboard_wandb import WandbDashboard

            return WandbDashboard(config, identity, folder)
        case "tensorboard":
            from tslrec.dashboard_tensorboard import TensorBoardDashboard

            return TensorBoardDashboard(config, identity, folder)
        case _:
            return Dashboard()


def numbers(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """Those of a row's metrics that are numbers."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}
