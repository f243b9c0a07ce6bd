"""An unfinished file of recommendations: the folder `<file>.parts` beside it.

plan.json     what the file is made of and how its users are cut into shards; written before any shard
claims        the locks of the shards that a running process is computing
shard-00007/  a finished shard: recommendations.parquet and its manifest
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tslrec.serving.streaming.plan import PLAN, Plan, read_plan
from tslrec.system.errors import UserError
from tslrec.system.files import is_being_written, left_over, write_json
from tslrec.system.manifests import POLL_SECONDS
from tslrec.system.shard_locks import ShardLocks
from tslrec.system.shares import CLAIMS, SHARD, Shares

ROWS = "recommendations.parquet"
"""The recommendations of one shard, in its folder."""

WHOLE = 2**40
"""The lock of the plan and of the result; far behind the shards' locks."""


def parts_folder(out: Path) -> Path:
    """Where the parts of a file are until it is complete."""
    return out.with_name(out.name + ".parts")


class Parts(Shares):
    """The shards of one unfinished file.

    Args:
        folder: the folder of the parts.
        plan: the plan in it.

    Attributes:
        plan: see above; `key` is its hex sha256.
    """

    kind = "file"

    def __init__(self, folder: Path, plan: Plan) -> None:
        super().__init__(folder, plan.num_shards, plan.key)
        self.plan = plan

    @classmethod
    def begin_or_resume(cls, folder: Path, plan: Plan, *, first: bool, unfinished: Callable[[], bool]) -> Parts | None:
        """Begins a file, or resumes one with the intact shards of an earlier run.

        Whichever process comes first writes the plan, so that no process waits for one that failed.

        Args:
            folder: where the parts are written.
            plan: what is wanted. A file that is resumed keeps its own shard size.
            first: whether this is rank 0, which looks for damaged shards.
            unfinished: whether the file is still unfinished.

        Returns:
            The shards; None if the file was finished first.

        Raises:
            UserError: if the earlier run made its shards from something else, or the folder is of something else.
        """
        refuse_another_folder(folder)
        with alone(folder):
            begun = read_plan(folder)
            if begun is not None:
                begun.require_match(plan, folder / PLAN)
            if not unfinished():
                # Rank 0 has deleted the folder and `alone` has made it again, or rank 0 was killed before it could.
                remove_parts(folder)
                return None
            if begun is None:
                try:
                    write_json(folder / PLAN, plan.as_json())
                except OSError:
                    remove_parts(folder)
                    raise
                return cls(folder, plan)
            parts = cls(folder, begun)
            if first:
                parts.remove_damaged()
            return parts

    @property
    def files(self) -> list[Path]:
        """The recommendations of all shards, in order."""
        return [self.path(number) / ROWS for number in range(self.num_shards)]

    def forget_if_empty(self) -> None:
        """Deletes the folder if no shard is finished and nobody computes one: a corrected command begins anew."""
        try:
            locks = ShardLocks(self.folder / CLAIMS)
        except FileNotFoundError:
            return
        with locks:
            if len(self.missing) == self.num_shards and all(map(locks.try_acquire, range(self.num_shards))):
                remove_parts(self.folder)


def refuse_another_folder(folder: Path) -> None:
    """Refuses a folder of the parts' name that holds something else: what is in it would be deleted at the end.

    Raises:
        UserError: if it does.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return
    except NotADirectoryError:
        names = [folder.name]
    if not all(map(is_a_part, names)):
        raise UserError(f"{folder}: is not what an unfinished file of recommendations leaves; move it, or name another")


def is_a_part(name: str) -> bool:
    """Whether a name is one of those that are in a folder of parts."""
    # A network file system keeps a deleted file that is still open, under a hidden name.
    return name in (PLAN, CLAIMS) or name.startswith((SHARD, ".")) or is_being_written(name, PLAN)


def remove_parts(folder: Path) -> None:
    """Deletes the parts as far as it can, the plan last; a folder that holds anything else stays with that."""
    for shard in (*folder.glob(f"{SHARD}*"), *folder.glob(f".{SHARD}*")):
        shutil.rmtree(shard, ignore_errors=True)
    if any(folder.glob(f"{SHARD}*")):
        return
    with contextlib.suppress(OSError):
        for path in left_over(folder / PLAN):
            path.unlink()
        for name in (CLAIMS, PLAN):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lets one process at a time decide about the whole: begin it, or join the finished shards."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            (folder / CLAIMS).touch()
            locks = ShardLocks(folder / CLAIMS)
        except FileNotFoundError:
            # Rank 0 deleted the folder in between.
            continue
        with locks:
            while not locks.try_acquire(WHOLE):
                time.sleep(POLL_SECONDS)
            yield
        return
