"""What an artifacts folder contains: finished results, results in the making, and what interrupted runs left."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from tslrec.knowledge.shard_files import count_shards
from tslrec.pipeline.unfinished import UNFINISHED, UnfinishedRun
from tslrec.stages.registry import code_version
from tslrec.system.errors import UserError
from tslrec.system.files import list_files
from tslrec.system.manifests import CHECKPOINTS, KEY_LENGTH, LOCK, PARTIAL, is_free, read_manifest, verify
from tslrec.system.run_files import RUNS, result_paths

BEING_MADE = re.compile(rf"(?P<name>.+-[0-9a-f]{{{KEY_LENGTH}}})\..+{re.escape(PARTIAL)}")
"""Name of a result's `.partial` folder: the result's name, then that of the job that makes it."""

NOT_STAGES = (RUNS, UNFINISHED, "sweeps", "wandb", "tensorboard")
"""Folders of an artifacts folder that are not those of stages."""


class State(StrEnum):
    """The state of a result."""

    DONE = "done"
    RUNNING = "running"
    STOPPED = "stopped"
    """Not finished, and no process works on it now: killed, or failed."""
    STALE = "stale"
    """Made by another version of the stage's code, so this version never uses it."""
    DAMAGED = "damaged"
    """Its manifest cannot be read, or a file is not what the manifest says."""


@dataclass(frozen=True)
class Entry:
    """One result of a stage, finished or not.

    Attributes:
        stage: its stage.
        name: the name of its folder.
        state: its state.
        folders: all folders that belong to it: the result, the partial ones, the checkpoints.
        size: of all files in them, in bytes.
        note: of a finished result, when it was made and how long that took; of an unfinished one, its last checkpoint;
            of a damaged one, what is wrong.
        key: of a finished result; None of any other.
        inputs: the keys of the artifacts that it was made from.
        extended: whether it was made from another result of its own stage (`tslrec extend`).
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

    @property
    def short_key(self) -> str:
        """The beginning of its key, as its folder's name shows it."""
        return self.name[-KEY_LENGTH:]

    @property
    def is_finished(self) -> bool:
        """Whether its folder is complete, even if another version of the code made it."""
        return self.key is not None

    @property
    def can_resume(self) -> bool:
        """Whether it is unfinished and something of it is kept: a checkpoint, or shards."""
        return self.state is State.STOPPED and any(
            folder.name.endswith(CHECKPOINTS) and list_files(folder) != [] for folder in self.folders
        )


def inventory(root: Path, *, check_files: bool = False) -> list[Entry]:
    """All results below an artifacts folder, by stage and name.

    Args:
        root: the artifacts folder.
        check_files: compare each file with the hash in its manifest; this reads every file.

    Raises:
        UserError: if the folder does not exist.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; name the one that artifacts=FOLDER named")
    found = []
    for stage in sorted(path for path in root.iterdir() if path.is_dir() and path.name not in NOT_STAGES):
        names = {name for path in stage.iterdir() if path.is_dir() and (name := name_of(path)) is not None}
        found += [read_entry(stage, name, check_files=check_files) for name in sorted(names)]
    return found


def name_of(path: Path) -> str | None:
    """The name of the result that a folder belongs to; None if it belongs to none."""
    if path.name.endswith(CHECKPOINTS):
        return path.name.removesuffix(CHECKPOINTS)
    if match := BEING_MADE.fullmatch(path.name):
        return match["name"]
    return path.name if re.search(rf"-[0-9a-f]{{{KEY_LENGTH}}}$", path.name) else None


def read_entry(stage: Path, name: str, *, check_files: bool) -> Entry:
    """One result.

    Args:
        stage: the stage's folder.
        name: the result's name.
        check_files: see `inventory`.
    """
    folders = tuple(sorted(path for path in stage.iterdir() if path.is_dir() and name_of(path) == name))
    size = sum((folder / file).stat().st_size for folder in folders for file in list_files(folder))
    finished = stage / name
    if finished not in folders:
        running = not is_free(FileLock(stage / (name + LOCK)))
        state = State.RUNNING if running else State.STOPPED
        return Entry(stage.name, name, state, folders, size, progress_note(stage / (name + CHECKPOINTS)))
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


def progress_note(checkpoints: Path) -> str:
    """The last checkpoint of an unfinished result, or how many of its shards are finished."""
    try:
        shards = count_shards(checkpoints)
    except UserError as error:
        return str(error)
    if shards is not None:
        return f"{shards[0]:,} of {shards[1]:,} shards"
    steps = sorted(checkpoints.glob("step-*"))
    return f"a checkpoint of step {int(steps[-1].name.removeprefix('step-')):,}" if steps else "no checkpoint"


def referenced_keys(root: Path, entries: list[Entry], needed: Iterable[str] = ()) -> set[str]:
    """The keys of all artifacts that are needed: by a recorded run, by an extended store, or as an input of these.

    Args:
        root: the artifacts folder.
        entries: its inventory.
        needed: further keys, of unfinished runs.
    """
    made_from: Mapping[str, tuple[str, ...]] = {each.key: each.inputs for each in entries if each.key is not None}
    extended = [each.key for each in entries if each.key is not None and each.extended]
    to_visit, found = [*keys_of_runs(root), *extended, *needed], set[str]()
    while to_visit:
        key = to_visit.pop()
        if key not in found:
            found.add(key)
            to_visit += made_from.get(key, ())
    return found


def keys_of_runs(root: Path) -> Iterator[str]:
    """The keys of the stage results and of the titles that recorded runs name, those of their members among them.

    Raises:
        UserError: if a `result.json` cannot be read.
    """
    for path in result_paths(root):
        try:
            results = json.loads(path.read_text(encoding="utf-8"))["results"]
            results += [member for result in results for member in result.get("members", ())]
            yield from (stage["key"] for result in results for stage in result["stages"].values())
            yield from (result["titles"]["key"] for result in results if "titles" in result)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not the result of a run ({error}); delete its folder") from error


def left_over(root: Path, entries: list[Entry], unfinished: Sequence[UnfinishedRun] = ()) -> list[Entry]:
    """The results that nothing needs: no recorded run, no unfinished run, no result that is made now or can be resumed.

    What a needed result was made from is needed too. An extended store always is: no run names it, but a person asked
    for it by a command of its own. A damaged result never is. If a process works on a result and no record says what
    for (another version of this program started it), all finished results are taken for needed.

    Args:
        root: the artifacts folder.
        entries: its inventory.
        unfinished: the runs that are at work or shall be resumed (`tslrec.pipeline.unfinished`).

    Raises:
        UserError: if a recorded run cannot be read.
    """
    needed = {key for run in unfinished for key in run.keys}
    kept = referenced_keys(root, entries, needed)
    short = {key[:KEY_LENGTH] for key in needed}
    unknown = any(each.state is State.RUNNING and each.short_key not in short for each in entries)
    left = []
    for each in entries:
        if each.is_finished:
            is_kept = unknown or each.key in kept
        else:
            is_kept = each.state is State.RUNNING or (each.state is State.STOPPED and each.short_key in short)
        if not is_kept:
            left.append(each)
    return left


def remove(entry: Entry) -> bool:
    """Removes a result; returns False, and removes nothing, if a process works on it by now.

    Raises:
        UserError: if the operating system refuses.
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
