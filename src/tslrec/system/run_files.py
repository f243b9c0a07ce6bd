"""Where finished runs are below an artifacts folder: `runs/NAME/result.json`."""

from __future__ import annotations

from pathlib import Path

RUNS = "runs"
"""Folder of the runs, in the artifacts folder."""

RESULT_FILE = "result.json"
"""File name of the results of a run's methods, in the run's folder."""


def result_paths(root: Path) -> list[Path]:
    """The result files of all runs below an artifacts folder, the latest last."""
    return sorted((root / RUNS).glob(f"*/{RESULT_FILE}"), key=lambda path: path.stat().st_mtime)
