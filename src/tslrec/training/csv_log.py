"""The CSV log of a stage, `log/metrics.csv`: a resumed training continues it as if it had never stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers import Logger
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from tslrec.system.manifests import LOG, LOG_FILE


class CsvLog(CSVLogger):
    """Losses and validation metrics by epoch or step.

    Tensors are read when the file is written, every 100 steps: reading one from a GPU waits for all that the GPU was
    given to do.

    Args:
        folder: of the stage; the log is `log/metrics.csv` in it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name=LOG, version="")
        self.file = folder / LOG_FILE
        self.waiting: list[tuple[dict[str, Any], int]] = []

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Adds a row, which is written later; a tensor in it must not be changed until then."""
        if step is None or not any(isinstance(value, Tensor) for value in metrics.values()):
            self.take_waiting()
            super().log_metrics(metrics, step)
            return
        self.waiting.append((dict(metrics), step))
        if (step + 1) % self._flush_logs_every_n_steps == 0:
            self.save()

    def save(self) -> None:
        self.take_waiting()
        super().save()

    def take_waiting(self) -> None:
        """Reads the numbers of the rows that wait."""
        waiting, self.waiting = self.waiting, []
        for metrics, step in waiting:
            super().log_metrics(metrics, step)

    def text(self) -> str:
        """The whole file so far; empty before the first row, and on every rank but 0."""
        self.save()
        return self.file.read_bytes().decode() if self.file.is_file() else ""

    def restore(self, text: str) -> None:
        """Starts the file with the rows that an earlier process logged; only rank 0, which has the folder, does it."""
        if not text or not self.file.parent.is_dir():
            return
        self.file.write_bytes(text.encode())
        # Lightning's writer appends to the file if it knows the file's column names.
        self.experiment.metrics_keys = text.splitlines()[0].split(",")


def log_step(loggers: Iterable[Logger], metrics: Mapping[str, Tensor], step: int) -> None:
    """Logs the numbers of one training step.

    The CSV log reads them later (see `CsvLog`); other trackers get plain numbers, for which a GPU is waited for.

    Args:
        loggers: the module's.
        metrics: one-element tensors, detached.
        step: of the training, from 0.
    """
    for logger in loggers:
        own = isinstance(logger, CsvLog)
        logger.log_metrics(dict(metrics) if own else {name: float(value) for name, value in metrics.items()}, step)  # type: ignore[arg-type]
