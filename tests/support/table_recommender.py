"""A recommender whose scores are whole numbers, so that they do not depend on which users are computed together.

Also a script, one process of a job: `python table_recommender.py FOLDER [MOMENT NUMBER]` recommends the users of
`FOLDER/histories.parquet` into `FOLDER/recs.parquet` in shards of `SHARD_SIZE` users, and writes a line to
`FOLDER/computed` for each shard that it begins. Processes of a job of two wait for each other before they begin. With
the moment `beside` the process computes nothing before another process has begun a shard. With any other moment it
kills itself with SIGKILL: `before` or `after` shard NUMBER (-1: any shard) gets its final name, when the result is
`written` but has not its name yet, or when it has (`named`).

Shapes: see `tslrec.serving.engine`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tslrec.serving.catalogue import Catalogue
from tslrec.serving.engine import Batch, Floats, Ids
from tslrec.serving.histories import Histories
from tslrec.serving.recommender import Recommender
from tslrec.serving.streaming import stream
from tslrec.serving.streaming.history_files import open_histories
from tslrec.serving.streaming.plan import Request
from tslrec.serving.streaming.sources import HistorySource
from tslrec.system import files, manifests, processes

NUM_ITEMS, NUM_USERS, SHARD_SIZE = 50, 101, 8
NUM_SHARDS = -(-NUM_USERS // SHARD_SIZE)


class TableEngine:
    """A user's vector is the sum of the vectors of the last items; see `tslrec.serving.engine.Engine`."""

    name = "table"
    max_len = 4

    def __init__(self, num_items: int, seed: int) -> None:
        self.num_items = num_items
        table = np.random.default_rng(seed).integers(-9, 10, (num_items + 1, 6)).astype(np.float32)
        table[0] = 0
        self.table_IE = table

    def user_vectors(self, batch: Batch) -> Floats:
        found: Floats = self.table_IE[batch.items_BL].sum(axis=1)
        return found

    def scores(self, batch: Batch, candidates_C: Ids) -> Floats:
        found: Floats = self.user_vectors(batch) @ self.table_IE[candidates_C].T
        return found

    def item_vectors(self) -> Floats:
        return self.table_IE

    def best_items(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        scores_BI = self.user_vectors(batch) @ self.table_IE.T
        scores_BI[batch.seen_rows_S, batch.seen_items_S] = -np.inf
        forbidden = np.ones(self.num_items + 1, dtype=bool)
        forbidden[1:] = candidates_C is not None
        if candidates_C is not None:
            forbidden[candidates_C] = False
        scores_BI[:, forbidden] = -np.inf
        order_BK = np.argsort(-scores_BI, axis=1, kind="stable")[:, :length]
        scores_BK = np.take_along_axis(scores_BI, order_BK, axis=1)
        return np.where(scores_BK == -np.inf, 0, order_BK), scores_BK


def make_recommender(seed: int = 0, num_items: int = NUM_ITEMS, prefix: str = "i") -> Recommender:
    """A recommender of items `i1`, `i2`, …, of which the last ones are the most popular."""
    raw_ids = ["", *(f"{prefix}{item}" for item in range(1, num_items + 1))]
    titles = [None, *(f"Title {item}" for item in range(1, num_items + 1))]
    items = pl.DataFrame({"raw_id": raw_ids, "title": titles, "count": range(num_items + 1)})
    return Recommender(TableEngine(num_items, seed), Catalogue(items), {"keys": {"seed": str(seed)}})


def make_histories(num_users: int = NUM_USERS, num_items: int = NUM_ITEMS) -> pl.DataFrame:
    """Columns `user` and `items`; a few users have unknown items, no known one, or no item at all."""
    draw = np.random.default_rng(1)
    lists = [[f"i{item}" for item in draw.integers(1, num_items + 1, draw.integers(1, 9))] for _ in range(num_users)]
    lists[3], lists[num_users // 2], lists[-1] = ["i7", "gone", "i9"], ["gone"], []
    return pl.DataFrame({"user": [f"u{row}" for row in range(num_users)], "items": lists})


class NotedSource:
    """A source that writes a line for each range that is read.

    Args:
        source: the histories.
        note: the file of the lines.
        begun: a range is read once so many ranges are noted, by this and other processes.
    """

    def __init__(self, source: HistorySource, note: Path, begun: int = 1) -> None:
        self.source = source
        self.note = note
        self.begun = begun

    @property
    def num_users(self) -> int:
        return self.source.num_users

    def identity(self) -> dict[str, Any]:
        return self.source.identity()

    def read(self, users: slice, catalogue: Catalogue, unknown_items: str) -> Histories:
        with self.note.open("a") as file:
            file.write(f"{users.start // SHARD_SIZE}\n")
        while len(self.note.read_text().splitlines()) < self.begun:
            time.sleep(0.01)
        return self.source.read(users, catalogue, unknown_items)


def kill_at(moment: str, number: int) -> None:
    """Lets this process kill itself at a moment: see above."""
    publish, sync, rename = manifests.publish, files.sync, Path.replace

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def publish_or_die(aside: Path, final: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        meant = number == -1 or final.name == f"shard-{number:05d}"
        if meant and moment == "before":
            die()
        manifest = publish(aside, final, facts)
        if meant and moment == "after":
            die()
        return manifest

    def sync_or_die(path: Path) -> None:
        sync(path)
        if moment == "written" and files.is_being_written(path.name, "recs.parquet"):
            die()

    def rename_or_die(path: Path, target: Path) -> Path:
        result = rename(path, target)
        if moment == "named" and Path(target).name == "recs.parquet":
            die()
        return result

    manifests.publish, files.sync = publish_or_die, sync_or_die
    Path.replace = rename_or_die  # type: ignore[method-assign,assignment]


def wait_for_each_other(folder: Path, rank_zero: bool) -> None:
    """Returns once both processes of a job of two are here."""
    ready = folder / "ready"
    ready.mkdir(exist_ok=True)
    (ready / str(rank_zero)).touch()
    while len(list(ready.iterdir())) < 2:
        time.sleep(0.01)


def main(folder: Path, moment: str | None = None, number: str = "0") -> None:
    """One process of the job."""
    first = processes.is_rank_zero()
    begun = 2 if moment == "beside" else 1
    source = NotedSource(open_histories(folder / "histories.parquet"), folder / "computed", begun)
    if moment not in (None, "beside"):
        kill_at(str(moment), int(number))
    if "WORLD_SIZE" in os.environ or os.environ.get("SLURM_NTASKS") == "2":
        wait_for_each_other(folder, first)
    stream.recommend_to_file(
        make_recommender(), source, Request(k=5), folder / "recs.parquet", shard_size=SHARD_SIZE, first=first
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
