"""Whole runs: `train.py` as a program of its own, small settings for it, and what a run leaves in its folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from support.checkout import CHECKOUT, PYTHONPATH
from support.waiting import HANG_SECONDS

SMALL = [
    "llm=tiny",
    "data.reader.num_users=60",
    "data.reader.num_items=40",
    "data.reader.num_categories=4",
    "preferences.num_clusters=4",
    "model.hidden_size=8",
    "training.max_epochs=2",
]
"""Overrides with which all five stages take a few seconds."""


def run_environment(folder: Path) -> dict[str, str]:
    """Environment variables of a run: one thread, a cache in the run's folder, no network."""
    return {
        **os.environ,
        "PYTHONPATH": PYTHONPATH,
        "OMP_NUM_THREADS": "1",
        "TSLREC_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }


def train(*overrides: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `train.py` in a folder to its end."""
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "train.py"), *overrides],
        cwd=folder,
        env=run_environment(folder),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def train_until_killed(
    *overrides: str,
    folder: Path,
    at: str,
    step: int = 0,
    moment: Literal["before", "after"] = "after",
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs `train.py` in a folder until it kills itself with SIGKILL while it publishes a result or a checkpoint.

    The moment is given by what is published, not by a clock (see `killed_run.py`). The test fails if the run ends
    otherwise.

    Args:
        overrides: arguments of `train.py`.
        folder: the run's working directory.
        at: what is published, by the end of its folder's path; a pattern of `fnmatch`, `backbone/*.checkpoints/step-*`.
        step: for checkpoints, the first optimizer step that counts; the first checkpoint at or after it is meant.
        moment: "after" the folder has its final name, or "before", when all its files but the manifest are written.
        environment: further environment variables.
    """
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("killed_run.py")), at, str(step), moment, *overrides],
        cwd=folder,
        env={**run_environment(folder), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL, run.stdout


def assert_one_line(run: subprocess.CompletedProcess[str]) -> str:
    """The one line with which a run ended that a person can put right."""
    assert run.returncode == 2, run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def result_of(folder: Path) -> dict[str, Any]:
    """The `result.json` of the only run in a folder."""
    (path,) = (folder / "artifacts" / "runs").glob("*/result.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def manifests(folder: Path) -> dict[str, float]:
    """When the manifest of each finished result was written (seconds since 1970), by the result's folder."""
    return {
        path.parent.relative_to(folder / "artifacts").as_posix(): path.stat().st_mtime
        for path in (folder / "artifacts").glob("*/*/manifest.json")
        # Between writing the manifest and renaming the folder, a stage is not finished yet.
        if path.parent.suffix != ".partial"
    }
