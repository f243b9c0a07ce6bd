"""The results of finished runs, read from `runs/…/result.json` as plain dicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tslrec.pipeline.result_names import names_of
from tslrec.pipeline.result_settings import setting
from tslrec.system.errors import UserError
from tslrec.system.manifests import KEY_LENGTH, read_manifest
from tslrec.system.run_files import result_paths


def read_results(root: Path, *, none_is_an_error: bool = True) -> Iterator[Mapping[str, Any]]:
    """The results of all runs below an artifacts folder, the latest last.

    Args:
        root: the artifacts folder.
        none_is_an_error: whether to refuse a folder without a finished run.

    Raises:
        UserError: if a result cannot be read, or there is none and that is an error.
    """
    paths = result_paths(root)
    if not paths and none_is_an_error:
        raise UserError(f"{root}: no finished run; name the folder that artifacts=FOLDER named")
    for path in paths:
        yield from read_result(path)


def read_result(path: Path) -> list[Mapping[str, Any]]:
    """The results of one run's methods, as its `result.json` holds them.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        results: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["results"]
        for result in results:
            names_of(result), setting(result), result["metrics"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the result of a run ({error!r}); delete its folder") from error
    return [result if "content" in result else with_facts(result, path.absolute().parents[2]) for result in results]


def with_facts(result: Mapping[str, Any], root: Path) -> Mapping[str, Any]:
    """A result that was recorded without the facts of `facts_of`, with those that its artifacts still tell.

    Args:
        result: an entry of a `result.json`.
        root: the artifacts folder of the run.
    """
    stages, found = {}, dict(result)
    for name, stage in result.get("stages", {}).items():
        manifest = manifest_of(root / name / Path(str(stage["folder"])).name)
        stages[name] = {**stage, **facts_of(manifest)}
        if (key := manifest.get("inputs", {}).get("data")) is not None:
            for folder in (root / "data").glob(f"*-{key[:KEY_LENGTH]}"):
                if "config" in (data := manifest_of(folder)):
                    found["content"] = data["config"].get("sha256")
    return {**found, "stages": stages} if stages else result


def facts_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage's manifest says of its result that the run's configuration does not: see `pipeline.identity`."""
    kept = {name: manifest[name] for name in ("version", "processes") if name in manifest}
    weights = manifest.get("config", {}).get("weights")
    return kept if weights is None else {**kept, "weights": weights}


def manifest_of(folder: Path) -> Mapping[str, Any]:
    """The manifest of a result; an empty one if it is gone or damaged, which `tslrec status` tells of."""
    try:
        return read_manifest(folder)
    except UserError:
        return {}
