"""Numbered shards of a result: several processes compute them, each shard once, even if some are killed.

The processes do not communicate. They see which shards are finished by the folders, and which are being computed by
the locks of one file (see `tslrec.system.shard_locks`):

    claims        the locks of the shards that a running process is computing
    shard-00007/  a finished shard: written under another name, its manifest last, synced and renamed
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tslrec.system import manifests
from tslrec.system.errors import UserError
from tslrec.system.manifests import POLL_SECONDS, read_manifest, verify
from tslrec.system.meter import Meter
from tslrec.system.shard_locks import ShardLocks

log = logging.getLogger(__name__)

CLAIMS = "claims"
"""Which shards are being computed by a live process."""

SHARD = "shard-"
"""First part of the name of a finished shard's folder; the shard's number follows."""

Produce = Callable[[int, Path], Mapping[str, Any]]
"""Computes the shard of a number, writes its files into an empty folder, and returns the manifest's further entries."""


Plan = TypeVar("Plan")


def awaited(read: Callable[[], Plan | None], unfinished: Callable[[], bool]) -> Plan | None:
    """Waits for the plan that rank 0 writes before the first shard. For all other ranks.

    Args:
        read: the plan; None if it was not written yet.
        unfinished: whether the result is still unfinished.

    Returns:
        The plan; None if the result was finished first.
    """
    while (plan := read()) is None:
        if not unfinished():
            return None
        time.sleep(POLL_SECONDS)
    return plan


class Shares:
    """The shards of one unfinished result.

    Args:
        folder: holds the shards; all processes of the job see it.
        num_shards: number of shards.
        key: hex sha256 of what determines the shards; each shard's manifest holds it.

    Attributes:
        folder: see above.
        num_shards: see above.
        key: see above.
        kind: what the shards are part of, for messages.
    """

    kind: str = "result"

    def __init__(self, folder: Path, num_shards: int, key: str) -> None:
        self.folder = folder
        self.num_shards = num_shards
        self.key = key

    def path(self, number: int) -> Path:
        """The folder of a finished shard."""
        return self.folder / f"{SHARD}{number:05d}"

    @property
    def missing(self) -> list[int]:
        """Numbers of the shards that are not finished, ascending."""
        there = {path.name for path in self.folder.glob(f"{SHARD}*")}
        return [number for number in range(self.num_shards) if self.path(number).name not in there]

    def manifest(self, number: int) -> dict[str, Any]:
        """The manifest of a finished shard.

        Raises:
            UserError: if it is missing or unreadable.
        """
        return read_manifest(self.path(number))

    def continue_meter(self, meter: Meter) -> int:
        """Lets the meter of a stage that resumes go on from where the last of its finished shards left it.

        Returns:
            The number of finished shards.
        """
        missing = set(self.missing)
        manifests = [self.manifest(number) for number in range(self.num_shards) if number not in missing]
        if manifests:
            meter.continue_from(max(manifests, key=lambda manifest: manifest["wall_seconds"]))
        return len(manifests)

    def remove_damaged(self) -> None:
        """Deletes damaged shards, so that they are computed again. Only rank 0 may call it.

        Raises:
            UserError: if a shard belongs to another result.
        """
        for number in range(self.num_shards):
            if not (shard := self.path(number)).is_dir():
                continue
            try:
                manifest = read_manifest(shard)
                verify(shard, manifest)
            except UserError as error:
                log.warning(f"shard computed again: {error}")
                shutil.rmtree(shard)
                continue
            if manifest["key"] != self.key:
                raise UserError(f"{shard}: of the {self.kind} {manifest['key']}, wanted {self.key}; delete the folder")

    def fill(self, produce: Produce, *, unfinished: Callable[[], bool], wait_for_others: bool) -> None:
        """Computes missing shards in ascending order, except those that another process is computing.

        Args:
            produce: computes one shard.
            unfinished: whether the result is still unfinished.
            wait_for_others: return only when every shard is there, and compute the shards of processes that died.
        """
        try:
            locks = ShardLocks(self.folder / CLAIMS)
        except FileNotFoundError:
            # The result is finished, and rank 0 has deleted this folder.
            return
        with locks:
            while missing := self.missing:
                for number in missing:
                    self.compute_if_free(number, locks, produce, unfinished)
                if not (wait_for_others and unfinished()):
                    return
                time.sleep(POLL_SECONDS if self.missing else 0)

    def compute_if_free(self, number: int, locks: ShardLocks, produce: Produce, unfinished: Callable[[], bool]) -> None:
        """Computes one shard, unless it is finished or another process is computing it.

        Args:
            number: of the shard.
            locks: of this process.
            produce: see `fill`.
            unfinished: see `fill`.
        """
        # `unfinished` is asked after the look for the shard: a shard that was deleted with the finished result looks
        # missing, but then the result is finished.
        if self.path(number).is_dir() or not unfinished() or not locks.try_acquire(number):
            return
        try:
            if not self.path(number).is_dir() and unfinished():
                self.write(number, produce)
        finally:
            locks.release(number)

    def write(self, number: int, produce: Produce) -> None:
        """Computes, writes and publishes a shard. Only the process that holds its lock may call it.

        Args:
            number: of the shard.
            produce: see `fill`.
        """
        aside = self.folder / f".{SHARD}{number:05d}.partial"
        if aside.exists():
            shutil.rmtree(aside)
        aside.mkdir()
        try:
            facts = {"key": self.key, "metrics": {}, "process": os.getpid(), **produce(number, aside)}
            # By the module, so that a test can end the process at this moment.
            manifests.publish(aside, self.path(number), facts)
        except BaseException:
            # On a full disk the half-written shard would keep the space that is missing.
            shutil.rmtree(aside, ignore_errors=True)
            raise
