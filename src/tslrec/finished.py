"""Whether a run of a sweep is finished as it would be run now: then it is not even started."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tslrec.artifacts import MANIFEST
from tslrec.config import Config
from tslrec.inventory import code_version
from tslrec.summary import read_result
from tslrec.sweep import Cell


def fingerprint(config: Config) -> str:
    """Hex sha256 of what says how a run goes: its configuration, the stages' versions, size and time of the raw file.

    It is stricter than the artifacts' keys: whoever differs is started, and then finds what it can use.
    """
    path = None if config.data.path is None else Path(config.data.path)
    content: dict[str, Any] = {
        "config": asdict(config),
        "versions": {stage: code_version(stage) for stage in ("data", *config.method.stages)},
        "file": [path.stat().st_size, path.stat().st_mtime_ns] if path is not None and path.is_file() else None,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_finished(cell: Cell, config: Config) -> bool:
    """Whether a run is done, was the same, and its artifacts are still there."""
    if not cell.is_done or cell.result is None or cell.fingerprint != fingerprint(config):
        return False
    stages = [stage for result in read_result(cell.result / "result.json") for stage in result["stages"].values()]
    return all((Path(stage["folder"]) / MANIFEST).is_file() for stage in stages)
