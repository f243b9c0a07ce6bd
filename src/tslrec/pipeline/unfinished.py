"""Runs that are at work or were interrupted, and the results that they build on: `tslrec clean` keeps these.

A run writes `unfinished/<run>-<job>.json` in the artifacts folder before it uses or makes a result, and holds the lock
beside it while it works. A finished run removes it, together with those that earlier, interrupted runs of the same
configuration left. A run that is refused before its first stage removes its own. Until then a free lock tells an
interrupted run, which the same command goes on with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tslrec.system.errors import StoppedError, UserError
from tslrec.system.files import write_json
from tslrec.system.manifests import KEY_LENGTH, LOCK, is_free

if TYPE_CHECKING:
    from filelock import BaseFileLock

UNFINISHED = "unfinished"
"""Folder of these records in an artifacts folder."""

GATE = "cleaning" + LOCK
"""A lock in that folder: who holds it cleans up, or is writing what a run needs. So a run that starts while `clean`
looks has either written what it needs before the look, or begins after the removal."""


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that is at work, or that was interrupted.

    Attributes:
        path: its record.
        running: whether a process works on it now.
        keys: the keys of the results that it uses, has made, or will make.
        command: its command line.
        began: when it began, in ISO 8601.
        place: its host and process.
    """

    path: Path
    running: bool
    keys: frozenset[str]
    command: str
    began: str
    place: str

    @classmethod
    def read(cls, path: Path) -> UnfinishedRun | None:
        """Reads a record; None if it is gone by now, because the run has finished.

        Raises:
            UserError: if it cannot be read.
        """
        # The lock is asked first: a run that finishes in between removes its record.
        running = not is_free(lock_of(path))
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            place = f"{content['host']}, process {content['process']}"
            keys, command = frozenset(map(str, content["keys"])), str(content["command"])
            return cls(path, running, keys, command, str(content["began"]), place)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not the record of a run ({error!r}); delete it") from error

    def remove(self) -> None:
        """Removes the record."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(LOCK).unlink(missing_ok=True)


class WorkRecord(AbstractContextManager["WorkRecord"]):
    """While active, keeps the record of this run; it begins with the first result that the run needs.

    Args:
        root: the artifacts folder.
        job: the job's name.
        first: whether this process is rank 0 of its job; the others record nothing.
        settings: what the run was asked for: the same command, the same settings.
    """

    def __init__(self, root: Path, job: str, first: bool, settings: Mapping[str, Any]) -> None:
        self.folder = root / UNFINISHED
        self.run = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:KEY_LENGTH]
        self.path = self.folder / f"{self.run}-{job}.json"
        self.first = first
        self.keys: set[str] = set()
        self.has_begun = False
        self.lock: BaseFileLock | None = None
        self.began = datetime.now(UTC).isoformat(timespec="seconds")

    def __enter__(self) -> WorkRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.lock is None:
            return
        was_refused = isinstance(error, UserError) and not isinstance(error, StoppedError) and not self.has_begun
        if error is None:
            with gate(self.folder):
                for path in self.folder.glob(f"{self.run}-*.json"):
                    other = None if path == self.path else UnfinishedRun.read(path)
                    if other is not None and not other.running:
                        other.remove()
                self.path.unlink(missing_ok=True)
        elif was_refused:
            self.path.unlink(missing_ok=True)
        self.lock.release()
        if error is None or was_refused:
            self.path.with_suffix(LOCK).unlink(missing_ok=True)

    def need(self, keys: Iterable[str], *, begins: bool = False) -> None:
        """Records that the run uses or makes results; waits while somebody cleans up.

        Args:
            keys: of the results.
            begins: whether a stage begins now, so that there may be something to resume.
        """
        self.has_begun |= begins
        wanted = set(keys)
        if not self.first or self.keys >= wanted:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with gate(self.folder):
            if self.lock is None:
                self.lock = lock_of(self.path)
                self.lock.acquire()
            self.keys |= wanted
            write_json(
                self.path,
                {
                    "keys": sorted(self.keys),
                    "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
                    "began": self.began,
                    "host": socket.gethostname(),
                    "process": os.getpid(),
                },
            )


def unfinished_runs(root: Path) -> list[UnfinishedRun]:
    """The runs of an artifacts folder that are at work or were interrupted, by their beginning.

    Raises:
        UserError: if a record cannot be read.
    """
    found = (UnfinishedRun.read(path) for path in (root / UNFINISHED).glob("*.json"))
    return sorted((each for each in found if each is not None), key=lambda each: each.began)


@contextmanager
def gate(folder: Path) -> Iterator[None]:
    """Holds the lock `GATE` of the folder of records."""
    from filelock import FileLock

    with FileLock(folder / GATE):
        yield


@contextmanager
def no_run_begins(root: Path) -> Iterator[None]:
    """While active, no run of an artifacts folder begins to use a result that it has not recorded.

    Raises:
        UserError: if the folder cannot be written.
    """
    folder = root / UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with gate(folder):
            yield
    except PermissionError as error:
        raise UserError(f"{error.filename or folder}: {error.strerror}; clean needs a folder it can write") from error


def lock_of(record: Path) -> BaseFileLock:
    """The lock that a run holds while it works."""
    from filelock import FileLock

    return FileLock(record.with_suffix(LOCK))
