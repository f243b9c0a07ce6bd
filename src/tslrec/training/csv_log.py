"""The CSV log of a stage, `log/metrics.csv`: a resumed training continues it as if it had never stopped."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loggers import CSVLogger

from tslrec.system.manifests import LOG, LOG_FILE


class CsvLog(CSVLogger):
    """Losses and validation metrics by epoch or step.

    Args:
        folder: of the stage; the log is `log/metrics.csv` in it.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name=LOG, version="")
        self.file = folder / LOG_FILE

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
