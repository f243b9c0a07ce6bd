"""The tracker of a run: where training curves and the final metrics go beside the CSV logs, which are always written.

`logger` names it: none (`Tracker`), Weights & Biases, or TensorBoard. A tracker follows one method on one data set. The
run's identity is known before anything is computed and is the same when the command is repeated, so a killed run is
resumed under the same id.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, cast

from tslrec.config import Config
from tslrec.pipeline.artifacts import Artifact
from tslrec.pipeline.sweeps.cell import CELL
from tslrec.settings.choices import OWN_KEYS
from tslrec.system.manifests import KEY_LENGTH
from tslrec.system.targets import find_target

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


@dataclass(frozen=True)
class RunIdentity:
    """Tells one run from others.

    Attributes:
        method: the method's name.
        data: the data set's name.
        model: the backbone's name.
        preset: the name of the set of numbers.
        seed: the run's.
        key: a hash of what determines the results of its stages.
        sweep: the name of the sweep that the run belongs to; None outside of one.
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
        """The identity of a configuration's run, in the sweep that this process belongs to.

        Args:
            config: the run's.
            key: the run's (`tslrec.pipeline.recipes.run_key`).
            environment: names the record of the sweep's cell.
        """
        sweep = Path(environment[CELL]).parent.parent.name if CELL in environment else None
        model = str(config.model["name"])
        return cls(config.method.name, config.data.name, model, config.preset, config.seed, key, sweep)

    @property
    def name(self) -> str:
        """For people to read; runs with other settings may have the same name."""
        return f"{self.method}-{self.data}-{self.model}-{self.preset}-seed{self.seed}"

    @property
    def id(self) -> str:
        """Letters and digits, unique: a run of a sweep has another id than the same run outside of it."""
        if self.sweep is None:
            return self.key
        return hashlib.sha256(f"{self.sweep} {self.key}".encode()).hexdigest()[:KEY_LENGTH]


class Tracker(AbstractContextManager["Tracker"]):
    """Tracks nothing beside the CSV logs; the base class of the other trackers.

    Attributes:
        package: the package that the tracker imports beside the project's own dependencies; None for none.
    """

    package: ClassVar[str | None] = None

    def __init__(self, config: Config | None = None, identity: RunIdentity | None = None, folder: Path | None = None):
        """A subclass may take more keyword arguments, which `configs/logger/NAME.yaml` then lists.

        Args:
            config: the run's.
            identity: tells the run from others.
            folder: of the artifacts; a tracker writes its files below it.
        """

    def loggers(self, stage: str) -> list[Logger]:
        """The Lightning loggers for the curves of a stage's training."""
        return []

    def log_artifact(self, stage: str, artifact: Artifact) -> None:
        """Called with each stage's result, computed or reused."""

    def log_result(self, metrics: Mapping[str, Any]) -> None:
        """Called once all stages are finished, with the metrics of the last one: the run's row of the closing table."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Called at the end of the run, also when it fails."""


def open_tracker(config: Config, identity: RunIdentity, folder: Path) -> Tracker:
    """The tracker that the `logger` section names.

    Args:
        config: the run's.
        identity: tells the run from others.
        folder: of the artifacts.

    Raises:
        UserError: if the tracker cannot start.
    """
    options = {name: value for name, value in config.logger.items() if name not in OWN_KEYS and name != "_target_"}
    tracker = find_target("logger", config.logger)
    return cast(Tracker, tracker(config, identity, folder, **options))


def numeric(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    """The metrics that are numbers."""
    return {name: value for name, value in metrics.items() if isinstance(value, int | float)}
