"""What lies in an artifacts folder: finished results, those being made, and what was left behind."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from tslrec.artifacts import CHECKPOINTS, KEY_LENGTH, LOCK, PARTIAL, is_free, read_manifest, verify
from tslrec.errors import UserError
from tslrec.files import list_files
from tslrec.recipes import DATA_VERSION

BEING_MADE = re.compile(rf"(?P<name>.+-[0-9a-f]{{{KEY_LENGTH}}})\..+{re.escape(PARTIAL)}")
RUNS = "runs"
PLAN, SHARD = "plan.json", "shard-"
"""Of a knowledge store in the making (`tslrec.knowledge.shards`, whose import takes seconds)."""
NO_STAGES = (RUNS, "sweeps", "wandb", "tensorboard")
"""Folders beside those of the stages."""


class State(StrEnum):
    """What became of a result."""

    DONE = "done"
    RUNNING = "running"
    STOPPED = "stopped"
    """It was begun, and nobody works on it now: killed, or failed."""
    STALE = "stale"
    """Made by another version of the stage's code, so never used again by this one."""
    DAMAGED = "damaged"
    """Its manifest, or a file that it names, is not what it was."""


@dataclass(frozen=True)
class Entry:
    """One result of a stage, or what there is of it.

    Attributes:
        stage: its stage.
        name: of its folder.
        state: what became of it.
        folders: everything that it consists of.
        size: of all of that, in bytes.
        note: when it was made and what it took; how far it came; or what is wrong.
        key: of a finished one.
        inputs: the keys of the artifacts that it was made from.
        extended: whether it was made from another of its stage, by a command of its own (`tslrec extend`).
    """

    stage: str
    name: str
    state: State
    folders: tuple[Path, ...]
    size: int
    note: str
    key: str | None = None
    inputs: tuple[str, ...] = ()
    extended: bool = False


def inventory(root: Path, *, check_files: bool = False) -> list[Entry]:
    """Everything below an artifacts folder, by stage and name.

    Args:
        root: the folder.
        check_files: compare every file with its hash, which reads all of them.

    Raises:
        UserError: if the folder is not there.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the one that artifacts=FOLDER named")
    found = []
    for stage in sorted(path for path in root.iterdir() if path.is_dir() and path.name not in NO_STAGES):
        names = {name for path in stage.iterdir() if path.is_dir() and (name := name_of(path)) is not None}
        found += [entry(stage, name, check_files=check_files) for name in sorted(names)]
    return found


def name_of(path: Path) -> str | None:
    """The result that a folder belongs to; None of what is no part of any."""
    if path.name.endswith(CHECKPOINTS):
        return path.name.removesuffix(CHECKPOINTS)
    if match := BEING_MADE.fullmatch(path.name):
        return match["name"]
    return path.name if re.search(r"-[0-9a-f]{12}$", path.name) else None


def entry(stage: Path, name: str, *, check_files: bool) -> Entry:
    """What there is of one result."""
    folders = tuple(sorted(path for path in stage.iterdir() if path.is_dir() and name_of(path) == name))
    size = sum((folder / file).stat().st_size for folder in folders for file in list_files(folder))
    finished = stage / name
    if finished not in folders:
        running = not is_free(FileLock(stage / (name + LOCK)))
        state = State.RUNNING if running else State.STOPPED
        return Entry(stage.name, name, state, folders, size, how_far(stage / (name + CHECKPOINTS)))
    try:
        manifest = read_manifest(finished)
        if check_files:
            verify(finished, manifest)
    except UserError as error:
        return Entry(stage.name, name, State.DAMAGED, folders, size, str(error))
    current = code_version(stage.name)
    stale = current is not None and manifest.get("version") != current
    note = f"{str(manifest.get('created', ''))[:16].replace('T', ' ')}, {manifest.get('wall_seconds', 0.0):,.0f} s"
    if stale:
        note += f", version {manifest.get('version')}, now {current}"
    inputs = dict(manifest.get("inputs", {}))
    return Entry(
        stage.name,
        name,
        State.STALE if stale else State.DONE,
        folders,
        size,
        note,
        str(manifest["key"]),
        tuple(inputs.values()),
        extended=stage.name in inputs,
    )


def how_far(checkpoints: Path) -> str:
    """The last checkpoint of a result that is not finished, or how many of its shards are there."""
    if (plan := checkpoints / PLAN).is_file():
        try:
            planned = json.loads(plan.read_text(encoding="utf-8"))
            shards = -(-planned["num_rows"] // planned["shard_size"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            return f"{PLAN} cannot be read ({error})"
        return f"{sum(1 for _ in checkpoints.glob(f'{SHARD}*')):,} of {shards:,} shards"
    steps = sorted(checkpoints.glob("step-*"))
    return f"a checkpoint of step {int(steps[-1].name.removeprefix('step-')):,}" if steps else "no checkpoint"


def code_version(stage: str) -> int | None:
    """The `VERSION` of a stage's code, read without importing it, which takes seconds; None of no stage."""
    if stage == "data":
        return DATA_VERSION
    found = importlib.util.find_spec(f"tslrec.stages.{stage}") if stage.isidentifier() else None
    if found is None or found.origin is None:
        return None
    match = re.search(r"^VERSION = (\d+)$", Path(found.origin).read_text(encoding="utf-8"), re.MULTILINE)
    return None if match is None else int(match[1])


def referred_to(root: Path, entries: list[Entry]) -> set[str]:
    """The keys of all artifacts that a recorded run used, that were extended, or that one of these was made from."""
    made_from: Mapping[str, tuple[str, ...]] = {each.key: each.inputs for each in entries if each.key is not None}
    extended = [each.key for each in entries if each.key is not None and each.extended]
    to_visit, found = [*keys_of_runs(root), *extended], set[str]()
    while to_visit:
        key = to_visit.pop()
        if key not in found:
            found.add(key)
            to_visit += made_from.get(key, ())
    return found


def keys_of_runs(root: Path) -> Iterator[str]:
    """The keys that the results of runs name.

    Raises:
        UserError: if one of these files cannot be read.
    """
    for path in sorted((root / RUNS).glob("*/result.json")):
        try:
            results = json.loads(path.read_text(encoding="utf-8"))["results"]
            yield from (stage["key"] for result in results for stage in result["stages"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not the result of a run ({error}); delete its folder") from error


def left_over(root: Path, entries: list[Entry]) -> list[Entry]:
    """What no recorded run refers to, itself or through what was made from it, and nobody works on.

    What never finished, or is damaged, no run refers to. An extended store no run refers to either, but it is what a
    command of its own was for.
    """
    kept = referred_to(root, entries)
    return [each for each in entries if each.state is not State.RUNNING and (each.key is None or each.key not in kept)]


def remove(entry: Entry) -> bool:
    """Removes a result; False if by now somebody works on it.

    Raises:
        UserError: if the disk does not let it.
    """
    stage = entry.folders[0].parent
    try:
        with FileLock(stage / (entry.name + LOCK), timeout=0):
            for folder in entry.folders:
                shutil.rmtree(folder)
    except Timeout:
        return False
    except OSError as error:
        raise UserError(f"{error.filename or stage}: {error.strerror or error}; remove it by hand") from error
    return True
