"""Whether a run of a sweep is finished as it would be run now; if so, the sweep does not start it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tslrec.config import Config
from tslrec.pipeline.recorded_results import read_result
from tslrec.pipeline.result_members import members_of
from tslrec.pipeline.sweeps.record import Cell
from tslrec.stages.method_stages import reads_titles
from tslrec.stages.registry import code_version, stage_names
from tslrec.system.errors import UserError
from tslrec.system.manifests import MANIFEST
from tslrec.system.run_files import RESULT_FILE


def fingerprint(config: Config) -> str:
    """Hex sha256 of a run's configuration, the versions of its stages, and the sizes and times of the files it reads.

    These are its raw file, or those of its folder; the titles, of a method that reads them; a local language model's.

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
        "file": facts_of_raw(config.data.path),
    }
    for name, given in (("llm", config.llm.path), ("t5", config.t5.path)):
        if given is not None:
            content[name] = facts_of_model(Path(given).expanduser())
    if reads_titles(config) or config.members:
        from tslrec.data.titles_file import titles_path

        content["versions"]["titles"] = code_version("titles")
        content["titles"] = size_and_time(titles_path(config.data, Path(config.cache)))
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def facts_of_raw(given: str | None) -> Any:
    """Size and time of the raw file that `data.path` names, or the names, sizes and times of the files of its folder.

    None if there is no file, or the run will refuse the folder.
    """
    if given is None or not (path := Path(given).expanduser()).is_dir():
        return None if given is None else size_and_time(path)
    from tslrec.data.formats.parts import files_of

    try:
        return names_sizes_and_times(path, files_of(path))
    except UserError:
        return None


def facts_of_model(path: Path) -> Any:
    """Size and time of a model's file, or the names, sizes and times of the files of its folder; None without any."""
    return names_sizes_and_times(path, sorted(path.iterdir())) if path.is_dir() else size_and_time(path)


def names_sizes_and_times(folder: Path, paths: Sequence[Path]) -> dict[str, list[int] | None]:
    """Size and time of each file, by its path in the folder."""
    return {path.relative_to(folder).as_posix(): size_and_time(path) for path in paths if path.is_file()}


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
    # Beside the run's own methods the file may keep those of other command lines.
    own = {config.method.name, *config.compare}
    results = [result for result in read_result(cell.result / RESULT_FILE) if result["method"] in own]
    results += [member for result in results for member in members_of(result)]
    stages = [stage for result in results for stage in result["stages"].values()]
    return all((Path(stage["folder"]) / MANIFEST).is_file() for stage in stages)
