"""An unfinished file of recommendations: the folder `<file>.parts` beside it.

plan.json     what the file is made of and how its users are cut into shards; written before any shard
claims        the locks of the shards that a running process is computing
shard-00007/  a finished shard: recommendations.parquet and its manifest
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tslrec.serving.streaming.plan import PLAN, Plan, read_plan
from tslrec.system.files import write_json
from tslrec.system.manifests import POLL_SECONDS
from tslrec.system.shard_locks import ShardLocks
from tslrec.system.shares import CLAIMS, Shares

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
            UserError: if the earlier run made its shards from something else.
        """
        with alone(folder):
            begun = read_plan(folder)
            if begun is not None:
                begun.require_match(plan, folder / PLAN)
            if not unfinished():
                # Rank 0 has deleted the folder and `alone` has made it again, or rank 0 was killed before it could.
                shutil.rmtree(folder, ignore_errors=True)
                return None
            if begun is None:
                write_json(folder / PLAN, plan.as_json())
                return cls(folder, plan)
            parts = cls(folder, begun)
            if first:
                parts.remove_damaged()
            return parts

    @property
    def files(self) -> list[Path]:
        """The recommendations of all shards, in order."""
        return [self.path(number) / ROWS for number in range(self.num_shards)]


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
