"""`logger=tensorboard`: event files in a folder per run and stage; it needs no account and no service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.config import Config
from tslrec.pipeline.trackers.base import RunIdentity, Tracker, numeric

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

RESULT = "result"
"""The folder of the final metrics, beside those of the stages."""


class TensorBoardTracker(Tracker):
    """Writes event files below `artifacts/tensorboard`.

    A resumed run adds event files to its folder; TensorBoard joins them to one curve.

    Args:
        config: the run's.
        identity: names the run's folder.
        folder: of the artifacts.
    """

    package = "tensorboard"

    def __init__(self, config: Config, identity: RunIdentity, folder: Path) -> None:
        self.config = config
        self.folder = folder / "tensorboard" / (identity.sweep or "") / f"{identity.name}-{identity.id}"

    def loggers(self, stage: str) -> list[Logger]:
        from lightning.pytorch.loggers import TensorBoardLogger

        return [TensorBoardLogger(self.folder, name=stage, version="", default_hp_metric=False)]

    def log_result(self, metrics: Mapping[str, Any]) -> None:
        """Writes the final metrics as scalars and as a table, and the configuration as text."""
        from torch.utils.tensorboard import SummaryWriter

        row = numeric(metrics)
        with SummaryWriter(self.folder / RESULT) as writer:
            for name, value in row.items():
                writer.add_scalar(f"final/{name}", value)
            lines = [f"| {name} | {value:.4f} |" for name, value in row.items()]
            writer.add_text("final", "\n".join(["| metric | value |", "|---|---|", *lines]))
            writer.add_text("config", "    " + json.dumps(asdict(self.config), indent=2).replace("\n", "\n    "))
