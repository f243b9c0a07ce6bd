"""`logger=wandb`: sweeps are groups, methods job types, and a run that is started again goes on under its id."""

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

from tslrec.artifacts import KEY_LENGTH, Artifact
from tslrec.config import Config
from tslrec.dashboard import Dashboard, RunIdentity, numbers
from tslrec.errors import StoppedError, UserError

if TYPE_CHECKING:
    import wandb


class StageCurves(Logger):
    """A stage's curves within a run: `STAGE/METRIC` over `STAGE/step`.

    Lightning's own logger has one count of steps for all stages, each of which begins at 0.
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
        """Nothing: the run's configuration says all of it."""


class WandbDashboard(Dashboard):
    """A Weights & Biases run; offline where there is no account.

    Raises:
        UserError: if it cannot be begun.
    """

    def __init__(self, config: Config, identity: RunIdentity, folder: Path) -> None:
        import wandb

        self.identity = identity
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.run = wandb.init(
                project=config.logger.project,
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

    def produced(self, stage: str, artifact: Artifact) -> None:
        """Refers to the folder's files, which stay where they are."""
        import wandb

        reference = wandb.Artifact(
            f"{stage}-{artifact.key[:KEY_LENGTH]}",
            type=stage,
            metadata={"key": artifact.key, "inputs": artifact.manifest.get("inputs"), **numbers(artifact.metrics)},
        )
        reference.add_reference(artifact.folder.resolve().as_uri())
        self.run.log_artifact(reference)

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """The row as a table and as the run's summary."""
        import wandb

        identity = asdict(self.identity)
        row = {**{name: identity[name] for name in ("method", "data", "model", "preset", "seed")}, **numbers(metrics)}
        self.run.log({"final": wandb.Table(columns=list(row), data=[list(row.values())])})
        self.run.summary.update(numbers(metrics))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, StoppedError):
            self.run.mark_preempting()
        self.run.finish(exit_code=0 if error is None else 1)


def has_account() -> bool:
    """Whether W&B can log in, or was told how to behave by `WANDB_MODE`."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
