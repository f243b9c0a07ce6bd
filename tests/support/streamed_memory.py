"""Prints this process's peak memory while it streams a large file of histories: `python streamed_memory.py FOLDER`.

The lines say `NAME VALUE MB`: `held`, the size of half of the histories in memory; `half` and `end`, the peaks after
half of the shards and before the last one; `joined`, that after the shards were joined into one file.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import numpy as np
import polars as pl

from support.table_recommender import make_recommender
from tslrec.serving.streaming.history_files import open_histories
from tslrec.serving.streaming.plan import Request
from tslrec.serving.streaming.stream import recommend_to_file
from tslrec.system.meter import peak_memory_gib

NUM_USERS, SHARD_SIZE, LENGTH, NUM_ITEMS = 600_000, 10_000, 100, 120


def write_histories(path: Path) -> None:
    """Writes lists of random item ids, a row group for each shard."""
    draw = np.random.default_rng(0)
    parts = []
    for begin in range(0, NUM_USERS, SHARD_SIZE):
        items = pl.Series(draw.integers(1, NUM_ITEMS + 1, SHARD_SIZE * LENGTH).astype(np.int64)).reshape((-1, LENGTH))
        users = np.arange(begin, begin + SHARD_SIZE)
        part = path.with_name(f"histories-{begin}.parquet")
        pl.DataFrame({"user": users, "items": items.cast(pl.List(pl.Int64))}).write_parquet(part)
        parts.append(part)
    pl.scan_parquet(parts).sink_parquet(path, row_group_size=SHARD_SIZE)
    for part in parts:
        part.unlink()


def main(folder: Path) -> None:
    """Writes, streams and joins."""
    histories = folder / "histories.parquet"
    # In another process, whose memory does not count.
    writer = multiprocessing.get_context("spawn").Process(target=write_histories, args=(histories,))
    writer.start()
    writer.join()
    held = pl.scan_parquet(histories).head(SHARD_SIZE).collect().estimated_size() * NUM_USERS / SHARD_SIZE / 2
    print(f"held {held / 1e6:.0f} MB")
    peaks: dict[int, float] = {}
    totals = recommend_to_file(
        make_recommender(num_items=NUM_ITEMS, prefix=""),
        open_histories(histories),
        Request(k=5),
        folder / "recs.parquet",
        shard_size=SHARD_SIZE,
        progress=lambda users: peaks.update({users: peak_memory_gib() * 2**30 / 1e6}),
    )
    assert totals is not None
    assert (totals.users, totals.unknown_items, totals.cold_users) == (NUM_USERS, 0, 0)
    print(f"half {peaks[NUM_USERS // 2]:.0f} MB")
    print(f"end {peaks[NUM_USERS - SHARD_SIZE]:.0f} MB")
    print(f"joined {peak_memory_gib() * 2**30 / 1e6:.0f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
