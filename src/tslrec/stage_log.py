"""The CSV log of a stage, `log/metrics.csv`, which can go on after an interruption as if there had been none."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from tslrec.artifacts import LOG, LOG_FILE


class StageLog(CSVLogger):
    """Losses and validation metrics by epoch or step.

    Args:
        folder: the stage's; the log is `log/metrics.csv` in it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name=LOG, version="")
        self.file = folder / LOG_FILE

    def text(self) -> str:
        """All rows so far, as they stand in the file; empty where nothing is logged yet, or in other processes."""
        self.save()
        return self.file.read_bytes().decode() if self.file.is_file() else ""

    def go_on(self, text: str) -> None:
        """Starts with the rows that an earlier process logged; in the process that writes."""
        if not text or not self.file.parent.is_dir():
            return
        self.file.write_bytes(text.encode())
        # Lightning's writer keeps the column names; with these it appends to the file.
        self.experiment.metrics_keys = text.splitlines()[0].split(",")
