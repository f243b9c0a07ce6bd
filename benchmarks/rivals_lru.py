"""Seconds of a training step of LRURec beside the authors' code, on the same windows: both sides in turn, for rounds.

    python benchmarks/rivals_lru.py --code FOLDER                       # a checkout of LlamaRec, commit 48b288b
    python benchmarks/rivals_lru.py --code FOLDER --data ml1m --file ml-1m.txt

Both sides have the same windows, windows per step, sizes, dropout and softmax over all items. The authors' step scores
every position of a padded window, ours the ones with a target; theirs has one target more in a window that is shorter
than the whole length (`rivals/side_lrurec.py`). A ratio is taken within each round, and the median of the rounds is
reported. The machine should do nothing else meanwhile; its load is recorded. Writes `results/bench/lrurec.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backbones import HERE, RESULTS, one_environment, run
from rivals.histories import interactions
from rivals.lru_windows import Windows, save_windows
from tslrec.data.interactions import Interactions
from tslrec.system.errors import UserError
from tslrec.system.files import write_json

SIDES = {"lrurec": "rivals.side_lrurec", "tslrec": "rivals.side_tslrec_lru"}
"""Their modules."""


def main(words: Sequence[str]) -> None:
    arguments = parse(words)
    load = os.getloadavg()[0]
    windows = windows_of(interactions(arguments), arguments.max_len)
    environment = one_environment(arguments.threads)
    environment["PYTHONPATH"] += os.pathsep + str(HERE)
    logs = RESULTS / "cases"
    logs.mkdir(parents=True, exist_ok=True)
    rounds: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "windows.npz")
        save_windows(windows, path)
        for turn in range(arguments.rounds):
            for side, module in SIDES.items():
                command = [sys.executable, "-m", module, "--windows", str(path)]
                command += ["--batch", str(arguments.batch), "--steps", str(arguments.steps)]
                command += ["--code", str(arguments.code)] if side == "lrurec" else []
                record = json.loads(run(command, environment, logs / f"lrurec.{side}.log"))
                rounds[side].append(record)
                print(f"round {turn + 1}: {side:8} {1000 * record['seconds']:9.1f} ms a step", flush=True)
    ratios = [
        theirs["seconds"] / ours["seconds"] for theirs, ours in zip(rounds["lrurec"], rounds["tslrec"], strict=True)
    ]
    figures = {
        f"{side}_seconds": statistics.median(each["seconds"] for each in found) for side, found in rounds.items()
    }
    figures["ratio"] = statistics.median(ratios)
    if not arguments.quick:
        write_json(
            RESULTS / "lrurec.json",
            {
                "figures": figures,
                "records": rounds,
                "windows": len(windows.lengths),
                "mean_length": float(windows.lengths.mean()),
                "max_len": windows.max_len,
                "items": windows.num_items,
                "batch": arguments.batch,
                "threads": arguments.threads,
                "load_average_before": round(load, 2),
            },
        )
    print(f"load before {load:.1f}, {arguments.threads} threads, {arguments.batch} windows a step")
    print(f"lrurec_ratio {figures['ratio']:.3g} x")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", required=True, type=Path, metavar="FOLDER", help="a checkout of the authors' code")
    parser.add_argument("--data", choices=["beauty", "ml1m"], default="beauty")
    parser.add_argument("--file", type=Path, help="the raw file of the data set; without it, histories are generated")
    parser.add_argument("--max-len", type=int, default=50)
    parser.add_argument("--batch", type=int, default=64, help="windows of a step; default 64, LlamaRec's")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few users and steps: to see that everything runs")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.steps, arguments.rounds = 2, 1
    for name in ("max_len", "batch", "steps", "rounds", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: one or more")
    return arguments


def windows_of(interactions: Interactions, max_len: int) -> Windows:
    """The last `max_len` + 1 items of each training part that has two or more."""
    parts = [
        interactions.items[begin : begin + length][-(max_len + 1) :]
        for begin, length in zip(interactions.offsets, interactions.train_lengths, strict=False)
        if length >= 2
    ]
    lengths = np.array([len(each) for each in parts])
    return Windows(np.concatenate(parts).astype(np.int64), lengths, max_len, interactions.num_items)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
