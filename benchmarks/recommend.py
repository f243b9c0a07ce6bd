"""Recommends to 10 million users by two processes that are killed once, or times all users of a run.

    python benchmarks/recommend.py users FOLDER                   10 million generated histories
    python benchmarks/recommend.py users FOLDER --users 200000    a trial
    python benchmarks/recommend.py evaluation artifacts           all users of a run beside a full evaluation

`users` writes a recommender with random weights (SASRec, 2,000 items, hidden size 32) and a Parquet file of histories
(8 items on average, row groups of 50,000 users) into FOLDER. Two processes with the environment of torchrun run
`tslrec recommend`. Once a random share of the shards is finished both get SIGKILL; the same command again does the
rest. Peaks are the kernel's own high-water marks of whole processes, imports included. It fails if a shard was computed
twice, if the rows of sampled shards are not those that this process computes, or if a process took more than 2 GiB.

`evaluation` runs, in turn in one process, `recommend_to_file` for all users of a run (10 items each, reading and
writing included) and the encoding and ranking of a full test of the same model with the run's batches, and prints the
ratio of the medians. The machine should do nothing else.

Prints a line per figure, `name value unit`; `--json FILE` also writes them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from tslrec.system.errors import UserError
from tslrec.system.exits import run_program
from tslrec.system.files import write_json
from tslrec.system.memory import keep_freed_memory
from tslrec.system.meter import Meter

SOURCES = Path(__file__).resolve().parent.parent / "src"
K = 10
LIMIT_GIB = 2.0
POLL_SECONDS = 0.02
FEWEST, MOST = 0.2, 0.8
"""Of the shards, between which both processes are killed."""
SAMPLED_SHARDS = 3


class Figures:
    """What was measured, printed as it comes."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self.values[name] = {"value": round(value, 4), "unit": unit}
        print(f"recommend/{name} {value:.0f} {unit}" if unit == "count" else f"recommend/{name} {value:.4g} {unit}")
        sys.stdout.flush()


@dataclass
class Job:
    """Two processes that run the same command, watched from outside.

    Attributes:
        command: of each process.
        parts: the folder of the shards.
        peaks: the largest VmHWM of each process that was seen, in GiB, by process id.
        shards: of each shard that was seen, its folder's inode and the process that computed it.
    """

    command: list[str]
    parts: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    peaks: dict[int, float] = field(default_factory=dict)
    shards: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    began: float = 0.0

    def start(self) -> None:
        self.began = time.perf_counter()
        self.processes = [
            subprocess.Popen(
                self.command,
                # As torchrun: one thread each, unless the caller says otherwise.
                env={
                    "OMP_NUM_THREADS": "1",
                    **os.environ,
                    "PYTHONPATH": str(SOURCES),
                    "RANK": str(rank),
                    "WORLD_SIZE": "2",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]

    def watch(self) -> bool:
        """Whether a process still runs; looks at their memory and at the shards."""
        for process in self.processes:
            if (peak := peak_gib(process.pid)) is not None:
                self.peaks[process.pid] = peak
        for path in self.parts.glob("shard-*"):
            try:
                inode = path.stat().st_ino
                if any(inode == known for known, _ in self.shards.get(path.name, ())):
                    continue
                computed_by = int(json.loads((path / "manifest.json").read_text())["process"])
            except FileNotFoundError:
                # Rank 0 has joined the shards, and deletes them.
                continue
            self.shards.setdefault(path.name, set()).add((inode, computed_by))
        time.sleep(POLL_SECONDS)
        return any(process.poll() is None for process in self.processes)

    def kill(self) -> None:
        """SIGKILL to both."""
        for process in self.processes:
            process.kill()
        self.finish(-signal.SIGKILL)

    def finish(self, code: int) -> float:
        """Waits for the end; returns the seconds since the start.

        Raises:
            UserError: if a process ended with another code.
        """
        for process in self.processes:
            said = process.communicate()[0]
            if process.returncode != code:
                raise UserError(f"benchmarks/recommend.py: a process ended with {process.returncode}: {said}")
        return time.perf_counter() - self.began


def peak_gib(pid: int) -> float | None:
    """VmHWM of a process; None if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None


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


def measure_evaluation(model: Path, method: str | None, figures: Figures, *, rounds: int) -> None:
    """All users of a run recommended to, and a full test, in turn."""
    import torch

    import tslrec
    from tslrec.data.datamodule import SequenceDataModule
    from tslrec.evaluation.ranking import target_ranks
    from tslrec.serving.run_folder import open_run
    from tslrec.serving.streaming.plan import Request
    from tslrec.serving.streaming.sources import DatasetUsers
    from tslrec.serving.streaming.stream import recommend_to_file
    from tslrec.stages.restored import Restored

    keep_freed_memory()
    run = open_run(model, method)
    interactions = run.interactions()
    restored, recommender = run.restore(interactions), tslrec.load(model, method=method)
    assert isinstance(restored, Restored)
    training = run.config.training
    data = SequenceDataModule(
        interactions,
        max_len=restored.max_len,
        batch_size=training.batch_size,
        eval_batch_size=training.eval_batch_size,
        all_positions=False,
        seed=0,
    )

    def evaluate() -> int:
        with torch.inference_mode():
            for batch in data.test_dataloader():
                user_BE = restored.encode(batch.items_BL, batch.lengths_B)
                assert batch.seen_rows is not None
                assert batch.seen_items is not None
                target_ranks(user_BE, restored.output_IE, batch.targets, batch.seen_rows, batch.seen_items)
        return len(data.tested)

    def recommend() -> int:
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / "recs.parquet"
            totals = recommend_to_file(recommender, DatasetUsers(interactions), Request(k=K), out)
            assert totals is not None
            return totals.users

    figures.add("threads", torch.get_num_threads(), "count")
    timed: dict[str, list[float]] = {"evaluation": [], "recommend": []}
    sides: dict[str, Callable[[], int]] = {"evaluation": evaluate, "recommend": recommend}
    for turn in range(1 + rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            users = side()
            # The first turn warms up.
            if turn:
                timed[name].append(time.perf_counter() - began)
            else:
                figures.add(f"{name}/users", users, "count")
    medians = {name: statistics.median(seconds) for name, seconds in timed.items()}
    for name, seconds in timed.items():
        figures.add(f"{name}/seconds", medians[name], "s")
        figures.add(f"{name}/seconds_fastest", min(seconds), "s")
    figures.add("recommend/times_an_evaluation", medians["recommend"] / medians["evaluation"], "times")


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    what = parser.add_subparsers(dest="what", required=True)
    users = what.add_parser("users", help="generated users, two processes, killed once")
    users.add_argument("folder", type=Path, metavar="FOLDER", help="for the files, about 2 GiB for 10 million users")
    users.add_argument("--users", type=int, default=10_000_000, metavar="N", help="default 10000000")
    users.add_argument("--shard-size", type=int, default=50_000, metavar="N", help="users of a shard; default 50000")
    users.add_argument("--seed", type=int, default=0, help="of the histories and of the moment of the kill; default 0")
    evaluation = what.add_parser("evaluation", help="all users of a run beside a full evaluation")
    evaluation.add_argument("model", type=Path, metavar="RUN", help="a finished run")
    evaluation.add_argument("--method", metavar="NAME", help="one of the methods that the run compared")
    evaluation.add_argument("--rounds", type=int, default=5, metavar="N", help="turns that count; default 5")
    return parser.parse_args(words)


def main(words: Sequence[str]) -> None:
    """Measures, prints, and perhaps writes the figures."""
    arguments, figures = parse(words), Figures()
    try:
        if arguments.what == "users":
            measure_users(
                arguments.folder,
                figures,
                num_users=arguments.users,
                shard_size=arguments.shard_size,
                seed=arguments.seed,
            )
        else:
            measure_evaluation(arguments.model, arguments.method, figures, rounds=arguments.rounds)
    finally:
        if arguments.json is not None:
            facts = {key: value for key, value in Meter().facts().items() if key in ("created", "machine", "packages")}
            write_json(arguments.json, {"command": list(words), "figures": figures.values, **facts})


if __name__ == "__main__":
    run_program(lambda: main(sys.argv[1:]))
