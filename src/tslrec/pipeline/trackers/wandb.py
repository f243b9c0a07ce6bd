"""`logger=wandb`: a Weights & Biases run per method, resumed under the same id.

The run's group is its sweep, or its method outside of a sweep; its job type is the method.
"""

from __future__ import annotations

import netrc
import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import Logger

from tslrec.config import Config
from tslrec.pipeline.artifacts import Artifact
from tslrec.pipeline.trackers.base import RunIdentity, Tracker, numeric
from tslrec.system.errors import StoppedError, UserError
from tslrec.system.manifests import KEY_LENGTH

if TYPE_CHECKING:
    import wandb


class StageCurves(Logger):
    """A stage's curves within a run: `STAGE/METRIC` over `STAGE/step`.

    Lightning's own logger has one step counter for the whole run, but each stage's steps begin at 0.

    Args:
        run: the Weights & Biases run.
        stage: the stage's name.
    """

    def __init__(self, run: wandb.Run, stage: str) -> None:
        super().__init__()
        self.run = run
        self.stage = stage
        run.define_metric(f"{stage}/step", hidden=True)
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    @property
    def name(self) -> str:
        return self.stage

    @property
    def version(self) -> str:
        return str(self.run.id)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {f"{self.stage}/{name}": value for name, value in metrics.items()}
        self.run.log(values if step is None else {**values, f"{self.stage}/step": step})

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Logs nothing: the configuration of the run holds every hyperparameter."""


class WandbTracker(Tracker):
    """Logs to a Weights & Biases run; offline if there is no account.

    Args:
        config: the run's, recorded with it.
        identity: gives the run its id and name.
        folder: of the artifacts; Weights & Biases writes its files to `wandb` below it.
        project: the Weights & Biases project.

    Raises:
        UserError: if Weights & Biases cannot start the run.
    """

    def __init__(self, config: Config, identity: RunIdentity, folder: Path, *, project: str = "tslrec") -> None:
        import wandb

        self.identity = identity
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.run = wandb.init(
                project=project,
                id=identity.id,
                resume="allow",
                group=identity.sweep or identity.method,
                job_type=identity.method,
                tags=[identity.data, identity.model, identity.preset, f"seed{identity.seed}"],
                name=identity.name,
                config=asdict(config),
                allow_val_change=True,
                dir=str(folder),
                mode=None if has_account() else "offline",
                settings=wandb.Settings(console="off", silent=True),
                reinit="finish_previous",
            )
        except wandb.Error as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"logger=wandb: {reason}; set WANDB_MODE=offline, or logger=tensorboard") from error

    def loggers(self, stage: str) -> list[Logger]:
        return [StageCurves(self.run, stage)]

    def log_artifact(self, stage: str, artifact: Artifact) -> None:
        """Logs references to the artifact's files, which are not uploaded."""
        import wandb

        reference = wandb.Artifact(
            f"{stage}-{artifact.key[:KEY_LENGTH]}",
            type=stage,
            metadata={"key": artifact.key, "inputs": artifact.manifest.get("inputs"), **numeric(artifact.metrics)},
        )
        reference.add_reference(artifact.folder.resolve().as_uri())
        self.run.log_artifact(reference)

    def log_result(self, metrics: Mapping[str, Any]) -> None:
        """Logs the final metrics as a table of one row, and as the run's summary."""
        import wandb

        identity = asdict(self.identity)
        row = {**{name: identity[name] for name in ("method", "data", "model", "preset", "seed")}, **numeric(metrics)}
        self.run.log({"final": wandb.Table(columns=list(row), data=[list(row.values())])})
        self.run.summary.update(numeric(metrics))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, StoppedError):
            self.run.mark_preempting()
        self.run.finish(exit_code=0 if error is None else 1)


def has_account() -> bool:
    """Whether Weights & Biases has an API key, or `WANDB_MODE` says how to run."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
