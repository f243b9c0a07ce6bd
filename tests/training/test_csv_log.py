"""The CSV log reads tensors when it writes its file, and keeps the order of the rows."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch.loggers.logger import DummyLogger

from tslrec.training.csv_log import CsvLog, log_step


def test_rows_of_tensors_and_of_numbers_keep_their_order(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    for step, loss in enumerate((0.5, 0.25)):
        log_step([log], {"loss": torch.tensor(loss)}, step)
    log.log_metrics({"validation": 1.5}, step=1)
    log_step([log], {"loss": torch.tensor(0.125)}, 2)
    rows = [line.split(",") for line in log.text().splitlines()]
    assert rows[0] == ["loss", "step", "validation"]
    assert rows[1:] == [["0.5", "0", ""], ["0.25", "1", ""], ["", "1", "1.5"], ["0.125", "2", ""]]


def test_tensors_wait_until_the_file_is_written(tmp_path: Path) -> None:
    log = CsvLog(tmp_path)
    log_step([log], {"loss": torch.tensor(1.0)}, 0)
    assert len(log.waiting) == 1
    for step in range(1, 100):
        log_step([log], {"loss": torch.tensor(1.0)}, step)
    assert not log.waiting
    assert len(log.file.read_text().splitlines()) == 101


def test_other_trackers_get_numbers(tmp_path: Path) -> None:
    seen: list[tuple[dict[str, float], int]] = []

    class Tracker(DummyLogger):
        def log_metrics(self, metrics: dict[str, float], step: int) -> None:  # type: ignore[override]
            seen.append((metrics, step))

    log_step([CsvLog(tmp_path), Tracker()], {"loss": torch.tensor(0.5)}, 3)
    assert seen == [({"loss": 0.5}, 3)]
    assert type(seen[0][0]["loss"]) is float


def test_a_resumed_log_continues_the_earlier_rows(tmp_path: Path) -> None:
    first = CsvLog(tmp_path / "first")
    log_step([first], {"loss": torch.tensor(0.5)}, 0)
    text = first.text()
    second = CsvLog(tmp_path / "second")
    # Lightning opens the log before it reads a checkpoint.
    assert second.experiment is not None
    second.restore(text)
    log_step([second], {"loss": torch.tensor(0.25)}, 1)
    assert second.text().splitlines() == [*text.splitlines(), "0.25,1"]
