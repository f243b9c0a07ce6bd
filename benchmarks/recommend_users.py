"""Recommends to generated users by two processes that are killed once: `recommend.py users`."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recommend_figures import Figures
from recommend_job import Job
from tslrec.system.errors import UserError

K = 10
"""Items for each user."""
LIMIT_GIB = 2.0
FEWEST, MOST = 0.2, 0.8
"""Of the shards, between which both processes are killed."""
SAMPLED_SHARDS = 3


def measure_users(folder: Path, figures: Figures, *, num_users: int, shard_size: int, seed: int) -> None:
    """Two runs, of which the first is killed, and what came of them."""
    from recommend_inputs import write_histories, write_model

    folder.mkdir(parents=True, exist_ok=True)
    model, histories, out = folder / "model", folder / "histories.parquet", folder / "recs.parquet"
    out.unlink(missing_ok=True)
    shutil.rmtree(folder / "recs.parquet.parts", ignore_errors=True)
    write_model(model)
    write_histories(histories, num_users, seed)
    total = -(-num_users // shard_size)
    figures.add("users", num_users, "count")
    figures.add("histories", histories.stat().st_size / 2**30, "GiB")
    figures.add("shards", total, "count")
    verb = [sys.executable, "-m", "tslrec.cli.main", "recommend", str(model), "--histories", str(histories)]
    command = [*verb, "-k", str(K), "--shard-size", str(shard_size), "--out", str(out)]

    job = Job(command, folder / "recs.parquet.parts")
    share = random.Random(seed).uniform(FEWEST, MOST)
    job.start()
    while len(job.shards) < share * total:
        if not job.watch():
            raise UserError(f"benchmarks/recommend.py: ended by itself: {job.processes[0].communicate()[0]}")
    job.kill()
    killed_seconds = time.perf_counter() - job.began
    left = len(list(job.parts.glob("shard-*")))
    figures.add("killed/shards", left, "count")
    figures.add("killed/seconds", killed_seconds, "s")

    first_peaks, job.peaks = job.peaks, {}
    pids_before = {process.pid for process in job.processes}
    job.start()
    while job.watch():
        continue
    seconds = job.finish(0)
    figures.add("resumed/seconds", seconds, "s")
    users = min((total - left) * shard_size, num_users)
    figures.add("resumed/users_a_second", users / seconds, "1/s")
    computed_by = [pid for seen in job.shards.values() for _, pid in seen]
    for rank, process in enumerate(job.processes):
        figures.add(f"resumed/shards/rank_{rank}", computed_by.count(process.pid), "count")
        figures.add(f"resumed/peak_memory/rank_{rank}", job.peaks[process.pid], "GiB")
    for rank, peak in enumerate(first_peaks.values()):
        figures.add(f"killed/peak_memory/rank_{rank}", peak, "GiB")
    figures.add("shards_of_the_killed_run_kept", sum(pid in pids_before for pid in computed_by), "count")
    figures.add("computed_twice", sum(len(seen) > 1 for seen in job.shards.values()), "count")
    figures.add("shards_seen", len(job.shards), "count")
    figures.add("differing_rows", differing_rows(model, histories, out, num_users, shard_size, seed), "count")
    check(figures, peaks=[*first_peaks.values(), *job.peaks.values()])


def differing_rows(model: Path, histories: Path, out: Path, num_users: int, shard_size: int, seed: int) -> int:
    """Rows of sampled shards whose user, item or rank is not what this process computes.

    Raises:
        UserError: if the file has another number of rows than K per user.
    """
    import tslrec

    rows = pl.scan_parquet(out)
    found = rows.select(pl.len()).collect().item()
    if found != num_users * K:
        raise UserError(f"benchmarks/recommend.py: {found:,} rows for {num_users:,} users")
    recommender, differ, shards = tslrec.load(model), 0, -(-num_users // shard_size)
    for shard in random.Random(seed).sample(range(shards), min(SAMPLED_SHARDS, shards)):
        begin = shard * shard_size
        given = pl.scan_parquet(histories).slice(begin, shard_size).collect()
        wanted = recommender.recommend(given, K).drop("score")
        here = rows.slice(begin * K, len(wanted)).drop("score").collect()
        differ += int((wanted != here).select(pl.any_horizontal(pl.all())).to_series().sum())
    return differ


def check(figures: Figures, peaks: Sequence[float]) -> None:
    """Fails if the figures are not what they must be."""
    value = {name: each["value"] for name, each in figures.values.items()}
    if value["computed_twice"] or value["differing_rows"] or value["shards_seen"] != value["shards"]:
        raise UserError("benchmarks/recommend.py: a shard was computed twice, not seen, or has other rows")
    if max(peaks) > LIMIT_GIB:
        raise UserError(f"benchmarks/recommend.py: a process took more than {LIMIT_GIB:g} GiB")
