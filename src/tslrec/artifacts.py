"""The typed, verified files that stages exchange: a folder per result, named by what determines it.

A folder is written beside its final place and renamed once its manifest, written last, is on disk. So a folder with
the final name is complete, and a process killed anywhere leaves only a `.partial` folder, which the next one clears.

Where several processes are one job, the first of them finds or computes; it says which by the `.partial` folder, whose
name tells its job from others. The others watch the disk: that lasts for hours where a collective would time out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.disk import disk_fault
from tslrec.errors import UserError
from tslrec.files import describe, list_files, sync, sync_tree, write_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

MANIFEST = "manifest.json"
LOG = "log"
LOG_FILE = f"{LOG}/metrics.csv"
KEY_LENGTH = 12
PARTIAL, CHECKPOINTS, LOCK = ".partial", ".checkpoints", ".lock"
"""What a result's folder name is followed by, where it is being made, trained, and held."""

POLL_SECONDS = 0.2
START_SECONDS = 600.0
"""How long the first process of a job may take to get to a stage: it may be started late, or read files slowly."""


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a stage's result, in readable form.

    Attributes:
        stage: the stage's name.
        label: what a person recognises the folder by; no part of the key.
        config: the part of the resolved configuration that the stage reads.
        inputs: the keys of the artifacts that it reads, by stage.
        seed: the stage's own seed, or None where nothing is drawn.
        version: of the stage's code; raised whenever results change.
    """

    stage: str
    label: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    version: int = 1

    @property
    def key(self) -> str:
        """Hex sha256 of what determines the result."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def text(self) -> str:
        """All of this but the label, as JSON."""
        determining = {name: value for name, value in asdict(self).items() if name != "label"}
        return json.dumps(determining, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def determining(self) -> dict[str, Any]:
        """The same, as a manifest holds it."""
        return dict(json.loads(self.text))


@dataclass(frozen=True)
class Artifact:
    """A verified stage result on disk."""

    folder: Path
    manifest: Mapping[str, Any]
    reused: bool

    @property
    def key(self) -> str:
        return str(self.manifest["key"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        return dict(self.manifest["metrics"])


class ArtifactStore:
    """All stage results below one folder: `<root>/<stage>/<label>-<key>/`.

    Args:
        root: the folder.
        job: what tells the processes of one job from those of others.
        first: whether this is the process that decides and writes for its job.
    """

    def __init__(self, root: Path, job: str = "single", first: bool = True) -> None:
        self.root = root
        self.job = job
        self.first = first

    def folder(self, recipe: Recipe) -> Path:
        return self.root / recipe.stage / f"{recipe.label}-{recipe.key[:KEY_LENGTH]}"

    def checkpoints(self, recipe: Recipe) -> Path:
        """Where the checkpoints of its training lie until it is finished."""
        folder = self.folder(recipe)
        return folder.with_name(folder.name + CHECKPOINTS)

    def drop_checkpoints(self, recipe: Recipe) -> None:
        """Once the result is there; by the next run, where this one is killed in between."""
        if (checkpoints := self.checkpoints(recipe)).exists():
            shutil.rmtree(checkpoints)

    def find(self, recipe: Recipe) -> Artifact | None:
        """The finished result of this recipe, if there is one.

        Raises:
            UserError: if the folder is there but its files are not what its manifest says.
        """
        folder = self.folder(recipe)
        if not folder.is_dir():
            return None
        manifest = read_manifest(folder)
        if manifest["key"] != recipe.key:
            raise UserError(
                f"{folder / MANIFEST}: made by key {manifest['key']}, wanted {recipe.key}; delete the folder"
            )
        if {name: manifest.get(name) for name in recipe.determining} != recipe.determining:
            raise UserError(f"{folder / MANIFEST}: made from something else than its key says; delete the folder")
        verify(folder, manifest)
        return Artifact(folder, manifest, reused=True)

    def produce(
        self,
        recipe: Recipe,
        compute: Callable[[Path], dict[str, Any]],
        facts: Callable[[], dict[str, Any]],
        *,
        together: bool = False,
    ) -> Artifact:
        """The result of this recipe: found, or computed by this job while others that want it wait.

        Args:
            recipe: what determines the result.
            compute: writes the files into the folder it is given and returns the stage's metrics.
            facts: called once the files are written: what else the manifest records (wall time, memory, versions).
            together: whether the other processes of the job take part in the computation, or only wait for it.

        Raises:
            UserError: if the folder cannot be written, or the job's first process is gone.
        """
        from filelock import FileLock

        folder = self.folder(recipe)
        lock = FileLock(folder.with_name(folder.name + LOCK))
        partial = folder.with_name(f"{folder.name}.{self.job}{PARTIAL}")
        try:
            if not self.first:
                return self.follow(recipe, lock, partial, compute if together else None)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with lock:
                found = self.find(recipe)
                if found is not None:
                    self.drop_checkpoints(recipe)
                    return found
                for left in folder.parent.iterdir():
                    if left.name.startswith(folder.name + ".") and left.suffix == PARTIAL:
                        shutil.rmtree(left)
                partial.mkdir()
                metrics = compute(partial)
                said = {"key": recipe.key, **asdict(recipe), "metrics": metrics, **facts()}
                manifest = publish(partial, folder, said)
                self.drop_checkpoints(recipe)
        except Exception as error:
            if (fault := disk_fault(error, folder)) is None:
                raise
            raise fault from error
        return Artifact(folder, manifest, reused=False)

    def follow(
        self, recipe: Recipe, lock: BaseFileLock, partial: Path, take_part: Callable[[Path], dict[str, Any]] | None
    ) -> Artifact:
        """The result that the job's first process finds or computes.

        Args:
            recipe: what determines the result.
            lock: held by whoever computes it.
            partial: the folder that the job computes it in.
            take_part: what this process does meanwhile, once; it writes nothing.

        Raises:
            UserError: if the first process is gone, or does not come.
        """
        began = time.monotonic()
        while (found := self.find(recipe)) is None:
            computing = partial.is_dir()
            if is_free(lock):
                # A lock that is free with its folder still there was given up by a process that ended.
                if computing and partial.is_dir():
                    raise UserError(f"{partial}: the first process of this job ended before it was done; run it again")
                if time.monotonic() - began > START_SECONDS:
                    raise UserError(
                        f"{self.folder(recipe)}: no first process of this job computes it; start all of its processes, "
                        "with artifacts on a disk that they share"
                    )
            elif computing and take_part is not None:
                take_part(partial)
                take_part = None
            time.sleep(POLL_SECONDS)
        return found


def publish(aside: Path, final: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a folder that was written aside its manifest and its final name, once all of it is on disk.

    Args:
        aside: the folder, on the same disk.
        final: its name from now on, which is free.
        facts: what the manifest says beside the files.

    Returns:
        The manifest.
    """
    manifest = {**facts, "files": {name: describe(aside / name) for name in list_files(aside)}}
    write_json(aside / MANIFEST, manifest)
    sync_tree(aside)
    aside.rename(final)
    sync(final.parent)
    return manifest


def is_free(lock: BaseFileLock) -> bool:
    """Whether nobody holds a lock now; a lock file that is not there yet is not made."""
    from filelock import Timeout

    if not Path(lock.lock_file).exists():
        return True
    try:
        with lock.acquire(timeout=0):
            return True
    except Timeout:
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished artifact.

    Raises:
        UserError: if it is missing or unreadable.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a readable manifest ({error}); delete {folder} to compute it again") from error
    if not isinstance(manifest, dict) or not {"key", "files", "metrics"} <= manifest.keys():
        raise UserError(f"{path}: not a manifest; delete {folder} to compute it again")
    return manifest


def verify(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Checks each file of an artifact against its manifest.

    Raises:
        UserError: naming the first file that is missing or differs.
    """
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing from the artifact; delete {folder} to compute it again")
        if describe(path) != expected:
            raise UserError(f"{path}: not the bytes its manifest names; delete {folder} to compute it again")
