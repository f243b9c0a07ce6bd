"""The verified results of stages on disk: a folder per result, named by a hash of what determines it.

A folder is written under a temporary name (`.partial`), its manifest last, and then renamed. So a folder with the final
name is complete, and a killed process leaves only a `.partial` folder, which the next run removes.

Several processes of one job share the work as follows. Rank 0 finds or computes the result. While it computes, the
`.partial` folder exists, and its name contains the job's name. The other processes watch the disk for that folder and
for the result. Watching works for hours, where a collective operation of `torch.distributed` would time out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tslrec.stages.registry import INGESTED
from tslrec.system.disk_errors import disk_fault
from tslrec.system.errors import UserError
from tslrec.system.manifests import (
    CHECKPOINTS,
    KEY_LENGTH,
    LOCK,
    MANIFEST,
    PARTIAL,
    POLL_SECONDS,
    is_free,
    publish,
    read_manifest,
    verify,
)

if TYPE_CHECKING:
    from filelock import BaseFileLock


START_SECONDS = 600.0
"""Seconds that the other processes wait for rank 0 to begin a stage: it may start late, or read files slowly."""


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a stage's result, in readable form.

    Attributes:
        stage: the stage's name.
        label: readable part of the folder's name; not part of the key.
        config: the part of the resolved configuration that the stage reads.
        inputs: the keys of the artifacts that the stage reads, by stage.
        seed: the stage's own seed; None if it draws nothing.
        version: of the stage's code; it is raised whenever the same settings give other results.
    """

    stage: str
    label: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None
    version: int = 1

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> Recipe:
        """The recipe that a result's manifest records."""
        return cls(**{each.name: manifest[each.name] for each in fields(cls)})

    @property
    def key(self) -> str:
        """Hex sha256 of what determines the result."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def text(self) -> str:
        """What determines the result, as canonical JSON: every attribute but the label."""
        determining = {name: value for name, value in asdict(self).items() if name != "label"}
        return json.dumps(determining, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def determining(self) -> dict[str, Any]:
        """The same as `text`, in the types that JSON keeps: as a manifest holds it."""
        return dict(json.loads(self.text))


@dataclass(frozen=True)
class Artifact:
    """A verified stage result on disk.

    Attributes:
        folder: its files.
        manifest: the content of its `manifest.json`.
        reused: whether it existed already and was not computed by this call.
    """

    folder: Path
    manifest: Mapping[str, Any]
    reused: bool

    @property
    def key(self) -> str:
        """Hex sha256 of its recipe."""
        return str(self.manifest["key"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the stage returned."""
        return dict(self.manifest["metrics"])


class Need(Protocol):
    """Notes results that a run uses or makes: see `tslrec.pipeline.unfinished.WorkRecord.need`."""

    def __call__(self, keys: Iterable[str], *, begins: bool = False) -> None: ...


class ArtifactStore:
    """All stage results below one folder: `<root>/<stage>/<label>-<key>/`.

    Args:
        root: the folder.
        job: the job's name, the same in all of its processes.
        first: whether this process is rank 0, which decides and writes for its job.
        need: is given the keys of results before they are used or made (`tslrec.pipeline.unfinished`), and whether a
            stage begins.
    """

    def __init__(
        self,
        root: Path,
        job: str = "single",
        first: bool = True,
        need: Need = lambda keys, *, begins=False: None,
    ) -> None:
        self.root = root
        self.job = job
        self.first = first
        self.need = need

    def folder(self, recipe: Recipe) -> Path:
        """Where the result of a recipe is, or will be."""
        return self.root / recipe.stage / f"{recipe.label}-{recipe.key[:KEY_LENGTH]}"

    def checkpoints(self, recipe: Recipe) -> Path:
        """Where checkpoints are kept until the result is finished."""
        folder = self.folder(recipe)
        return folder.with_name(folder.name + CHECKPOINTS)

    def drop_checkpoints(self, recipe: Recipe) -> None:
        """Removes the checkpoints of a finished result; also those that a run left which was killed before this."""
        if (checkpoints := self.checkpoints(recipe)).exists():
            shutil.rmtree(checkpoints)

    def find(self, recipe: Recipe) -> Artifact | None:
        """The finished result of a recipe; None if there is none.

        Raises:
            UserError: if its files are not those of its manifest, or the manifest is of another recipe.
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
        """Finds the result of a recipe, or computes it; other jobs that want the same result wait for this one.

        Args:
            recipe: what determines the result.
            compute: writes the files into the folder it is given, and returns the stage's metrics.
            facts: called once the files are written: what else the manifest records, such as wall time, peak memory
                and package versions.
            together: whether every process of the job calls `compute`, or rank 0 alone while the others wait.

        Raises:
            UserError: if the folder cannot be written, rank 0 ended before it was done, or it never began.
        """
        from filelock import FileLock

        folder = self.folder(recipe)
        lock = FileLock(folder.with_name(folder.name + LOCK))
        partial = folder.with_name(f"{folder.name}.{self.job}{PARTIAL}")
        try:
            if not self.first:
                return self.wait_for_result(recipe, lock, partial, compute if together else None)
            self.need([recipe.key, *recipe.inputs.values()], begins=recipe.stage not in INGESTED)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with lock:
                found = self.find(recipe)
                if found is not None:
                    self.drop_checkpoints(recipe)
                    return found
                for stale in folder.parent.iterdir():
                    if stale.name.startswith(folder.name + ".") and stale.suffix == PARTIAL:
                        shutil.rmtree(stale)
                partial.mkdir()
                metrics = compute(partial)
                recorded = {"key": recipe.key, **asdict(recipe), "metrics": metrics, **facts()}
                manifest = publish(partial, folder, recorded)
                self.drop_checkpoints(recipe)
        except Exception as error:
            if (fault := disk_fault(error, folder)) is None:
                raise
            raise fault from error
        return Artifact(folder, manifest, reused=False)

    def wait_for_result(
        self, recipe: Recipe, lock: BaseFileLock, partial: Path, take_part: Callable[[Path], dict[str, Any]] | None
    ) -> Artifact:
        """For the other processes of a job: the result that rank 0 finds or computes.

        Args:
            recipe: what determines the result.
            lock: held by the process that computes it.
            partial: the folder that rank 0 of this job writes into.
            take_part: this process's share of the computation, called once while rank 0 computes; it writes no files.
                None if this process only waits.

        Raises:
            UserError: if rank 0 ended before it was done, or did not begin within `START_SECONDS`.
        """
        began = time.monotonic()
        while (found := self.find(recipe)) is None:
            computing = partial.is_dir()
            if is_free(lock):
                # A free lock beside a partial folder: rank 0 ended without finishing. The folder is looked for again,
                # since rank 0 may have published it between the two questions.
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
