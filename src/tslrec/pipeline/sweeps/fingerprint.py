"""Whether a run of a sweep is finished as it would be run now; if so, the sweep does not start it again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tslrec.config import Config
from tslrec.pipeline.recorded_results import read_result
from tslrec.pipeline.result_members import members_of
from tslrec.pipeline.sweeps.record import Cell
from tslrec.stages.method_stages import reads_titles
from tslrec.stages.registry import code_version, stage_names
from tslrec.system.manifests import MANIFEST


def fingerprint(config: Config) -> str:
    """Hex sha256 of a run's configuration, the versions of its stages, and the size and time of its raw file
    and, of a method that reads them, of its titles.

    It is stricter than the keys of artifacts: a run with another fingerprint is started, and then reuses the artifacts
    that fit.
    """
    content: dict[str, Any] = {
        "config": asdict(config),
        # Which stages the members have is known once they are composed.
        "versions": {
            stage: code_version(stage)
            for stage in ("data", *(stage_names() if config.members else config.method.stages))
        },
        "file": size_and_time(None if config.data.path is None else Path(config.data.path)),
    }
    if reads_titles(config) or config.members:
        from tslrec.data.titles_file import titles_path

        content["versions"]["titles"] = code_version("titles")
        content["titles"] = size_and_time(titles_path(config.data, Path(config.cache)))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def size_and_time(path: Path | None) -> list[int] | None:
    """Bytes of a file and when it was last written; None if there is none."""
    return [path.stat().st_size, path.stat().st_mtime_ns] if path is not None and path.is_file() else None


def is_finished(cell: Cell, config: Config) -> bool:
    """Whether a run is done, had the same fingerprint as `config`, and its artifacts still exist.

    Raises:
        UserError: if its result cannot be read.
    """
    if not cell.is_done or cell.result is None or cell.fingerprint != fingerprint(config):
        return False
    results = read_result(cell.result / "result.json")
    results += [member for result in results for member in members_of(result)]
    stages = [stage for result in results for stage in result["stages"].values()]
    return all((Path(stage["folder"]) / MANIFEST).is_file() for stage in stages)
