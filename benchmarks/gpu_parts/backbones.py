"""The four backbones beside RecBole 1.2.1 and, where it has the model, RecTools 0.19.0 on the same card, in turn.

A process a side and data set is started by the first step; all of them read their data at once. From then on only one
works at a time. Without the peers' packages (`benchmarks/gpu_peers.sh` collects them) ours is measured alone.

A step measures its case in rounds, as many as its budget has time for, the sides in turn; ratios are taken within a
round, and of rounds the median is reported. After that, if time is left, one round trains with TF32 products on all
sides.
"""

from __future__ import annotations

import atexit
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from atomic_files import LAYOUTS, write_atomic
from card_workers import SideFailedError, Worker
from cases import CASES, Case
from gpu_parts.bench import Bench, Step
from tslrec.system.files import write_json

SIDES = ("tslrec", "recbole", "rectools")
FILES = {"beauty": "beauty/beauty.txt", "ml1m": "ml-1m/ml-1m.txt"}
"""Within the folder of the data."""
ROUNDS = 2
MARGIN = 0.9
"""Of a budget that may be planned with."""
AIM_EPOCH, AIM_EVALUATION = 8.0, 3.0
"""Times RecBole's speed, at width 64."""
TINY_USERS, TINY_ITEMS = 60, 40

FIGURES = (
    ("epoch", "epoch_seconds", "s"),
    ("evaluation", "evaluation_seconds", "s"),
    ("training_peak", "training_peak_gib", "GiB"),
    ("training_reserved", "training_reserved_gib", "GiB"),
    ("evaluation_peak", "evaluation_peak_gib", "GiB"),
)
COMPARED = {"epoch": AIM_EPOCH, "evaluation": AIM_EVALUATION, "training_peak": None}
"""What is given as a ratio, and what it must reach."""

Round = dict[str, dict[str, Any]]
"""A record by side."""


class Sides:
    """The processes of the sides, shared by the steps of this part.

    Args:
        bench: of the first step.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.folder = bench.folder / "backbones"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.workers: dict[tuple[str, str], Worker] = {}
        self.names = SIDES if bench.peers is not None else SIDES[:1]

    def ask(self, side: str, data: str, case: Case | None, precision: str = "highest") -> Worker:
        """Sends a request to the process of a side and a data set."""
        worker = self.workers.get((side, data))
        if worker is None:
            packages = None if side == "tslrec" else self.bench.peers
            log = self.bench.folder / f"backbones.{side}.{data}.log"
            worker = self.workers[side, data] = Worker(side, self.bench.device_name, packages, log)
        worker.send(
            {
                "case": None if case is None else case.name,
                "tiny": self.bench.rehearse,
                "data": data,
                "file": str(self.file(data)),
                "folder": str(self.atomic(data)),
                "precision": precision,
            }
        )
        return worker

    def file(self, data: str) -> Path:
        """The raw file of a data set; in a rehearsal one of a few made-up users."""
        if not self.bench.rehearse:
            return self.bench.data / FILES[data]
        path = self.folder / f"{data}.txt"
        if not path.exists():
            path.write_text(made_up(LAYOUTS[data]), encoding="utf-8")
        return path

    def atomic(self, data: str) -> Path:
        """The folder that holds a data set as the peers read it."""
        if self.bench.peers is not None and not (self.folder / data).exists():
            write_atomic(data, self.file(data), self.folder)
        return self.folder

    def end(self) -> None:
        for worker in self.workers.values():
            worker.end()


SHARED: list[Sides] = []
"""Of this process, once there are any."""


def sides_of(bench: Bench) -> Sides:
    """The sides, with the surroundings of the step that runs."""
    if not SHARED:
        SHARED.append(Sides(bench))
        atexit.register(SHARED[0].end)
    SHARED[0].bench = bench
    return SHARED[0]


def made_up(layout: str) -> str:
    """A raw file of random histories, from which a rehearsal learns nothing but that everything runs."""
    draw = random.Random(0)
    users = [[draw.randint(1, TINY_ITEMS) for _ in range(draw.randint(5, 14))] for _ in range(TINY_USERS)]
    if layout == "user_lines":
        return "".join(f"{user} {' '.join(map(str, items))}\n" for user, items in enumerate(users, 1))
    return "".join(f"{user} {item}\n" for user, items in enumerate(users, 1) for item in items)


def prepare(bench: Bench) -> None:
    """Starts all sides and lets them read their data, all at once; measures the card's fp32 product first."""
    began = time.perf_counter()
    deadline = began + budget(bench)
    bench.figure("product_fp32", bench.product_rate("float32"), "TFLOP/s")
    sides = sides_of(bench)
    if bench.peers is None:
        bench.say("RecBole and RecTools are not here (benchmarks/gpu_peers.sh): ours is measured alone")
    asked = [(side, data, sides.ask(side, data, None)) for data in FILES for side in sides.names]
    for side, data, worker in asked:
        if not worker.ready(deadline - time.perf_counter()) and side != "tslrec":
            bench.say(f"{side}: still reads {data}; what is measured meanwhile is not alone on the machine")
            continue
        try:
            users = worker.receive(deadline - time.perf_counter())["users"]
        except SideFailedError as error:
            if side == "tslrec":
                raise
            bench.say(f"{data}: {error}")
        else:
            bench.say(f"{side}: {users:,} users of {data}, {time.perf_counter() - began:.1f} s after the start")


def budget(bench: Bench) -> float:
    """Seconds that a step that has just begun may plan with; a rehearsal is not limited by the card's."""
    return bench.sized(MARGIN * (bench.ends - time.time()), 600.0)


def measuring(name: str) -> Callable[[Bench], None]:
    """A step that measures a case."""
    case = next(case for case in CASES if case.name == name)

    def run(bench: Bench) -> None:
        began = time.perf_counter()
        deadline = began + budget(bench)
        sides = sides_of(bench)
        rounds: list[Round] = []
        longest = 0.0
        for number in range(bench.sized(ROUNDS, 1)):
            if time.perf_counter() + longest > deadline:
                break
            started = time.perf_counter()
            rounds.append(one_round(bench, sides, case, "highest", deadline, f"{number + 1}"))
            report(bench, case, rounds)
            longest = max(longest, time.perf_counter() - started)
        bench.figure("rounds", len(rounds), "count")
        if not bench.rehearse and time.perf_counter() + longest <= deadline:
            report(bench, case, [one_round(bench, sides, case, "high", deadline, "tf32")], "tf32_")

    return run


def one_round(bench: Bench, sides: Sides, case: Case, precision: str, deadline: float, name: str) -> Round:
    """The record of each side that has the model, one after the other; each is kept in the scratch folder.

    Raises:
        SideFailedError: if ours failed; that another side did is only said.
    """
    found: Round = {}
    for side in [side for side in sides.names if case.efforts()[side] is not None]:
        worker = sides.ask(side, case.data, case, precision)
        try:
            record = worker.receive(deadline - time.perf_counter())
        except SideFailedError as error:
            if side == "tslrec":
                raise
            bench.say(str(error))
            continue
        found[side] = record
        write_json(sides.folder / f"{case.name}.{side}.{name}.json", record)
    counts = {(record["targets"], record["evaluated_users"]) for record in found.values()}
    if len(counts) > 1:
        raise RuntimeError(f"{case.name}: the sides do not train and rank the same: {counts}")
    return found


def report(bench: Bench, case: Case, rounds: list[Round], prefix: str = "") -> None:
    """Prints the figures of the rounds so far.

    Args:
        bench: takes them.
        case: what was measured.
        rounds: of one precision.
        prefix: of the names; with one, only training is reported: ours evaluates in float32 whatever it trains in.
    """
    measures = [each for each in FIGURES if not prefix or each[0] == "epoch"]
    for side in SIDES:
        records = [each[side] for each in rounds if side in each]
        for name, key, unit in measures if records else ():
            bench.figure(f"{prefix}{side}_{name}", statistics.median(record[key] for record in records), unit)
    for side in SIDES[1:]:
        pairs = [(each[side], each["tslrec"]) for each in rounds if side in each]
        for name, key, _ in measures if pairs else ():
            if name not in COMPARED or any(ours[key] == 0 for _, ours in pairs):
                continue
            aim = COMPARED[name] if side == "recbole" and case.hidden_size == 64 and not prefix else None
            value = statistics.median(theirs[key] / ours[key] for theirs, ours in pairs)
            bench.figure(f"{prefix}{side}_{name}_ratio", value, "x", **({} if aim is None else {"aim": aim}))
    ours = [each["tslrec"] for each in rounds]
    if not prefix:
        floor = ours[0]["epoch_flops"] / bench.product_rate("float32") / 1e12
        seconds = statistics.median(record["epoch_seconds"] for record in ours)
        bench.figure("floor", floor, "s")
        bench.figure("floor_share", 100 * floor / seconds, "%")
    for record in rounds[-1].values():
        if record.get("own_targets", record["targets"]) != record["targets"]:
            bench.say(
                f"RecTools' own epoch has {record['own_targets']:,} of {record['targets']:,} targets; "
                "its seconds are scaled to all of them"
            )
        if not record.get("whole_epoch", True):
            bench.say(f"RecBole's epoch is scaled from {record['epochs'][-1][1]:,} of {record['targets']:,} targets")


STEPS: tuple[Step, ...] = (
    Step("prepare", 30, prepare, "starts the sides; they read Beauty and MovieLens-1M"),
    Step("sasrec_d64_beauty", 27, measuring("sasrec_d64_beauty"), "ours, RecBole, RecTools"),
    Step("gru4rec_d64_beauty", 16, measuring("gru4rec_d64_beauty"), "ours, RecBole"),
    Step("caser_d64_beauty", 18, measuring("caser_d64_beauty"), "ours, RecBole"),
    Step("fmlp_d64_beauty", 16, measuring("fmlp_d64_beauty"), "ours, RecBole"),
    Step("sasrec_d256_beauty", 17, measuring("sasrec_d256_beauty"), "ours, RecBole, RecTools"),
    Step("sasrec_d64_ml1m", 24, measuring("sasrec_d64_ml1m"), "ours, RecBole, RecTools"),
)
