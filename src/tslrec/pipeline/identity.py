"""What tells recorded runs apart: all that changes their results but the seed. Tables never mix runs that differ in it.

Beside the settings (`tslrec.pipeline.result_settings`) these are facts that a configuration does not hold: the content
of the raw file, the bytes of the language model, the number of processes, the versions of the stages' code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tslrec.pipeline.nested import flatten
from tslrec.pipeline.recorded_results import read_result
from tslrec.pipeline.result_members import of_members
from tslrec.pipeline.result_settings import setting
from tslrec.stages.registry import find_stage
from tslrec.system.manifests import KEY_LENGTH
from tslrec.system.run_files import RESULT_FILE

CONTENT = "the content of data.path"
"""Name of the raw data's sha256 among what tells runs apart."""

TITLES = "the content of data.titles"
"""Name of the sha256 of the file of titles among what tells runs apart, of methods that read titles."""

WEIGHTS = "llm.weights"
"""Prefix of what tells the language model's weights from others."""

UNKNOWN = "unknown"
"""The content of a file of which neither the run nor its artifacts tell any more."""


def identity(result: Mapping[str, Any], *, versions: bool = True) -> dict[str, Any]:
    """All that changes a run's result but its seed, by name.

    Args:
        result: an entry of a run's `result.json`, or a cell of the paper's page.
        versions: whether the versions of the stages' code count.
    """
    stages: Mapping[str, Mapping[str, Any]] = result.get("stages", {})
    found = {**setting(result), CONTENT: content_of(result), "processes": processes_of(stages)}
    weights: Mapping[str, Any] = next(
        (stage["weights"] for stage in stages.values() if stage.get("weights") is not None), {}
    )
    found.update(flatten(weights, f"{WEIGHTS}."))
    if result.get("titles") is not None:
        found[TITLES] = result["titles"]["sha256"]
    if result.get("continues") is not None:
        found["continue_from.settings"] = result["continues"]
    of_member = partial(identity, versions=versions)
    found.update((name, value) for name, value in of_members(result, of_member) if not name.endswith(CONTENT))
    if versions:
        found.update({f"version of {name}": stage["version"] for name, stage in stages.items() if "version" in stage})
    return found


def content_of(result: Mapping[str, Any]) -> str | None:
    """Hex sha256 of a run's raw data: the pinned one, else that of the file that it read; None of generated data."""
    data = result["config"].get("data", {})
    pinned = (data.get("download") or {}).get("sha256")
    if pinned is not None:
        return str(pinned)
    if result.get("content") is not None:
        return str(result["content"])
    return UNKNOWN if path_of(result) is not None and "content" not in result else None


def path_of(result: Mapping[str, Any]) -> str | None:
    """The raw file of a run, as its command line named it, or the address that it was downloaded from."""
    data = result["config"].get("data", {})
    path = data.get("path") or (data.get("download") or {}).get("url")
    return None if path is None else str(path)


def processes_of(stages: Mapping[str, Mapping[str, Any]]) -> int | str:
    """How many processes computed the results of a run's stages: one number, or one for each stage.

    Stages that one process computes alone do not count.
    """
    numbers = {}
    for name, stage in stages.items():
        declared = find_stage(name)
        if declared is None or declared.together:
            numbers[name] = int(stage.get("processes", 1))
    if len(set(numbers.values())) <= 1:
        return next(iter(numbers.values()), 1)
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


def continued_identity(folder: str, method: str) -> str | None:
    """A short hash of what tells a continued run apart from others of its name; None if it is gone.

    Args:
        folder: the run's, as `continue_from` names it.
        method: the method whose result is continued.
    """
    path = Path(folder).expanduser() / RESULT_FILE
    if not path.is_file():
        return None
    earlier = next((each for each in read_result(path) if each["method"] == method), None)
    if earlier is None:
        return None
    text = json.dumps(identity(earlier), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
