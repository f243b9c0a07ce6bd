"""Measures a training step on an idle machine and beside busy processes: `make bench-shared-cores`.

Waiting OpenMP threads spin, which slows a step down many times over when another process needs a core. How long they
spin is a setting of the environment (see `tslrec.system.threads`). This benchmark compares settings: `torch` sets
nothing, `project` is what `train.py` sets, and `--settings` adds others. For each setting a process of its own trains
each case alone and then beside busy processes. The settings take turns within a round, because a shared machine's speed
drifts by half within minutes, so ratios are taken within a round and the median over the rounds is reported.

Prints one line per figure, `name value unit`. `step` figures are the median milliseconds of a training step. `ratio`
figures are relative to a step of setting `torch` alone. `--record` also writes them to
`results/bench/shared_cores.json`. The machine must be idle otherwise; its load is recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from report import Figure, rounded
from tslrec.system.errors import UserError
from tslrec.system.exits import exit_with
from tslrec.system.files import write_json
from tslrec.system.threads import VARIABLES as WAITING_VARIABLES
from tslrec.system.threads import limit_spinning

VARIABLES = (*WAITING_VARIABLES, "OMP_NUM_THREADS")
"""Environment variables that decide how many threads there are and how they wait."""

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "bench" / "shared_cores.json"
BEAUTY = ROOT.parent / "shared" / "data" / "beauty" / "beauty.txt"
CASES = ("small", "large", "teams")
"""See `timed_steps.CASES`, which imports torch."""
ALONE, BESIDE = "alone", "beside"

Settings = dict[str, dict[str, str]]
"""Environment variables by the name of the setting."""
Records = dict[str, list[dict[str, Any]]]
"""What `timed_steps.measure` returned, by the name of the setting, in the order of the rounds."""


def main(words: Sequence[str]) -> None:
    """Measures all settings and prints the figures."""
    arguments = parse(words)
    settings = all_settings(arguments.settings)
    load = os.getloadavg()[0]
    began = time.perf_counter()
    records: Records = {name: [] for name in settings}
    for number in range(arguments.rounds):
        for name in order_of_round(list(settings), number):
            records[name].append(json.loads(measure_in_child(words, settings[name])))
            print(f"round {number + 1} of {arguments.rounds}: {name} measured", file=sys.stderr, flush=True)
    lines = figures(records)
    for name, value, unit in lines:
        print(name, f"{value:g}", unit)
    if arguments.record:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        write_json(
            RESULTS,
            {
                "figures": {name: {"value": value, "unit": unit} for name, value, unit in lines},
                "settings": settings,
                "records": records,
                "busy_processes": arguments.busy,
                "data_of_large": "generated" if arguments.data is None else "beauty",
                "cores": os.cpu_count(),
                "load_average_before": round(load, 2),
                "wall_seconds": round(time.perf_counter() - began, 1),
            },
        )
        print(RESULTS)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Reads the command line.

    Raises:
        UserError: if the data file does not exist.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--settings",
        nargs="*",
        default=[],
        metavar="NAME=VALUE[,NAME=VALUE]",
        help="environment variables of further settings; torch and project are always measured",
    )
    parser.add_argument("--cases", nargs="+", default=["small", "large"], choices=CASES, help="default: small large")
    parser.add_argument(
        "--data",
        type=Path,
        default=BEAUTY if BEAUTY.is_file() else None,
        metavar="FILE",
        help="Beauty's raw file, for case large; default: beside the checkout, or a generated market of Beauty's size",
    )
    parser.add_argument("--busy", type=int, default=1, help="number of busy processes; default 1")
    parser.add_argument("--rounds", type=int, default=3, help="how often each setting is measured; default 3")
    parser.add_argument("--steps", type=int, default=30, help="timed steps of each measurement; default 30")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="a measurement ends after this time at the latest; default 6"
    )
    parser.add_argument("--record", action="store_true", help="write the figures to a file under results")
    parser.add_argument("--quick", action="store_true", help="tiny cases, to see that everything runs")
    arguments = parser.parse_args(words)
    for name in ("busy", "rounds", "steps"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: must be 1 or more")
    if arguments.data is not None and not arguments.data.is_file():
        raise UserError(f"--data {arguments.data}: there is no such file; give Beauty's raw file, or leave --data out")
    return arguments


def all_settings(texts: Sequence[str]) -> Settings:
    """The settings to measure, `torch` first.

    Args:
        texts: further settings, each `NAME=VALUE[,NAME=VALUE]`.

    Raises:
        UserError: if a text is not of this form, or names a variable that is not about threads.
    """
    project: dict[str, str] = {}
    limit_spinning(project)
    settings: Settings = {"torch": {}, "project": project}
    for text in texts:
        pairs = [pair.partition("=")[::2] for pair in text.split(",")]
        if not all(name in VARIABLES and value for name, value in pairs):
            raise UserError(
                f"--settings {text}: is not NAME=VALUE[,NAME=VALUE] with one of the names {', '.join(VARIABLES)}"
            )
        settings[text] = dict(pairs)
    return settings


def order_of_round(names: list[str], number: int) -> list[str]:
    """The names in an order that differs between rounds, so that none is always measured after the same one."""
    start = number % len(names)
    turned = names[start:] + names[:start]
    return turned[::-1] if number % 2 else turned


def measure_in_child(words: Sequence[str], setting: Mapping[str, str]) -> str:
    """The last line that a process prints which measures all cases under one setting.

    Raises:
        UserError: if the process fails.
    """
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {**setting, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, str(ROOT / "benchmarks" / "timed_steps.py"), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise UserError(f"{' '.join(command)}: ended with code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return lines[-1]


def figures(records: Records) -> list[Figure]:
    """Medians over the rounds; a ratio is taken within each round, to a step of `torch` alone."""
    lines: list[Figure] = []
    base = records["torch"]
    for case in base[0]["milliseconds"]:
        for way in (ALONE, BESIDE):
            for name, rounds in records.items():
                steps = [record["milliseconds"][case][way] for record in rounds]
                bases = [record["milliseconds"][case][ALONE] for record in base]
                ratios = [step / torch_alone for step, torch_alone in zip(steps, bases, strict=True)]
                lines.append((f"{case}_{way}_step_{name}", rounded(statistics.median(steps)), "ms"))
                lines.append((f"{case}_{way}_ratio_{name}", rounded(statistics.median(ratios)), "x"))
    return lines


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        exit_with(error)
