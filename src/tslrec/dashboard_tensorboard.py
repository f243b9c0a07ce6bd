"""`logger=tensorboard`: a folder per run, in it one per stage; no account, no service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.config import Config
from tslrec.dashboard import Dashboard, RunIdentity, numbers

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

RESULT = "result"


class TensorBoardDashboard(Dashboard):
    """Event files; those of a run that is started again lie beside the ones it left, which TensorBoard joins."""

    def __init__(self, config: Config, identity: RunIdentity, folder: Path) -> None:
        self.config = config
        self.folder = folder / (identity.sweep or "") / f"{identity.name}-{identity.id}"

    def loggers(self, stage: str) -> list[Logger]:
        from lightning.pytorch.loggers import TensorBoardLogger

        return [TensorBoardLogger(self.folder, name=stage, version="", default_hp_metric=False)]

    def finish(self, metrics: Mapping[str, Any]) -> None:
        """The row as single points and as a table, and the configuration as text."""
        from torch.utils.tensorboard import SummaryWriter

        row = numbers(metrics)
        with SummaryWriter(self.folder / RESULT) as writer:
            for name, value in row.items():
                writer.add_scalar(f"final/{name}", value)
            lines = [f"| {name} | {value:.4f} |" for name, value in row.items()]
            writer.add_text("final", "\n".join(["| metric | value |", "|---|---|", *lines]))
            writer.add_text("config", "    " + json.dumps(asdict(self.config), indent=2).replace("\n", "\n    "))
