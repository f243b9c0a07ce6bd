"""Ten recommendations for every user, beside RecBole and RecTools: `make bench-peers`.

Each side runs in the environment of its own library and asks a SASRec of the same size (64 wide, two layers, 50 items)
for all users of Beauty, from the raw file where it is given or beside the checkout, else of generated data of its size.
The weights are random: only time is compared. The libraries are called as their documentation calls them, on the CPU:

- ours: `Recommender.recommend`, from a frame of raw ids to a frame of raw ids, history masked;
- RecTools: `SASRecModel.recommend`, from raw user ids to a frame of raw ids, history masked; its data set is there;
- RecBole: `full_sort_topk` in batches of users, from raw user ids to raw item ids; its data set is there too, and it
  masks no history for a sequential model.

The sides take turns for some rounds, a process each time, because the speed of a shared machine drifts. A ratio is
taken within a round; the median over the rounds is reported. Ends with one line per figure, `name value unit`, also in
`results/bench/peers.json`. The machine should do nothing else meanwhile; its load is recorded.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from atomic_files import write_atomic
from backbones import BESIDE, HERE, RECBOLE, RECTOOLS, RESULTS, ROOT, WAITING, data_file, one_environment, run
from report import rounded
from tslrec.system.errors import UserError
from tslrec.system.files import write_json

DATA = "beauty"
USERS, ITEMS = 22_363, 12_101
"""Of Beauty."""
SHORTEST, LONGEST, TAIL = 5, 204, 2.2
"""Lengths of Beauty's histories: the ends, and the exponent of a Pareto distribution with its quantiles."""
QUICK_USERS = 1_000

Rounds = dict[str, list[dict[str, Any]]]
"""By side, a record for each round."""


def main(words: Sequence[str]) -> None:
    """Measures the sides and prints the figures."""
    arguments = parse(words)
    pythons = {"tslrec": Path(sys.executable), "recbole": arguments.recbole, "rectools": arguments.rectools}
    sides = arguments.side or list(pythons)
    for side in sides:
        if not pythons[side].exists():
            raise UserError(f"{pythons[side]}: no environment of {side}; run make bench-peers, or name its --{side}")
    environment = one_environment(arguments.threads)
    logs = RESULTS / "cases"
    logs.mkdir(parents=True, exist_ok=True)
    rounds: Rounds = {side: [] for side in sides}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file = histories_file(arguments.beauty, folder)
        if "recbole" in sides:
            write_atomic(DATA, file, folder)
        passes = ["--passes", "1", "--users", str(QUICK_USERS)] if arguments.quick else ["--passes", "3"]
        for turn in range(1 if arguments.quick else arguments.rounds):
            for side in sides:
                command = [str(pythons[side]), str(HERE / f"peer_side_{side}.py"), "--file", str(file)]
                command += ["--folder", str(folder), *passes]
                record = json.loads(run(command, environment, logs / f"peers.{side}.log"))
                rounds[side].append(record)
                print(f"round {turn + 1}: {side:10} {record['users'] / record['seconds']:10,.0f} users/s", flush=True)
        source = "generated, of Beauty's size" if file.parent == folder else "Beauty"
    print("\n" + summary(rounds, source, arguments.threads, load))
    lines = figures(rounds)
    if not arguments.quick:
        write_json(
            RESULTS / "peers.json",
            {
                "figures": {name: {"value": value, "unit": unit} for name, value, unit in lines},
                "records": rounds,
                "data": source,
                "threads": arguments.threads,
                "waiting": {name: environment.get(name) for name in WAITING},
                "load_average_before": round(load, 2),
            },
        )
    for name, value, unit in lines:
        print(name, f"{value:g}", unit)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", action="append", choices=["tslrec", "recbole", "rectools"], help="default: all")
    parser.add_argument("--beauty", type=Path, metavar="FILE", help="default: beside the checkout, or generated")
    parser.add_argument("--recbole", type=Path, default=RECBOLE, metavar="PYTHON", help="of RecBole's environment")
    parser.add_argument("--rectools", type=Path, default=RECTOOLS, metavar="PYTHON", help="of RecTools' environment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="how often the sides take turns; default 5")
    parser.add_argument(
        "--quick", action="store_true", help="few users, one round, no file: to see that everything runs"
    )
    arguments = parser.parse_args(words)
    for name in ("threads", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: one or more")
    return arguments


def histories_file(given: Path | None, folder: Path) -> Path:
    """The raw file of Beauty, or one of generated histories in a folder.

    Raises:
        UserError: if the given file does not exist.
    """
    if given is not None or (ROOT.parent / "shared" / "data" / BESIDE[DATA]).exists():
        return data_file(DATA, given)
    path = folder / f"{DATA}.txt"
    path.write_text("".join(f"{' '.join(map(str, words))}\n" for words in generated()), encoding="utf-8")
    return path


def generated() -> list[list[int]]:
    """Users and their items: as many as Beauty's, histories as long, and some items far more frequent than others."""
    generator = np.random.default_rng(0)
    lengths = (SHORTEST * (1 - generator.random(USERS)) ** (-1 / TAIL)).astype(int).clip(max=LONGEST)
    frequencies = 1 / np.arange(1, ITEMS + 1) ** 0.6
    drawn = generator.choice(ITEMS, lengths.sum() - ITEMS, p=frequencies / frequencies.sum()) + 1
    # Every item once, so that all of them are in every library's table.
    items = generator.permutation(np.concatenate([np.arange(1, ITEMS + 1), drawn]))
    histories = np.split(items, np.cumsum(lengths)[:-1])
    return [[user, *history.tolist()] for user, history in enumerate(histories, start=1)]


def figures(rounds: Rounds) -> list[tuple[str, float, str]]:
    """Users per second of each side, and how many times as long as ours the others take."""
    lines = [
        (f"peers_{side}", rounded(statistics.median(each["users"] / each["seconds"] for each in records)), "users/s")
        for side, records in rounds.items()
    ]
    ours = rounds.get("tslrec")
    for side, records in rounds.items():
        if ours is not None and side != "tslrec":
            pairs = zip(records, ours, strict=True)
            ratio = statistics.median(theirs["seconds"] / mine["seconds"] for theirs, mine in pairs)
            lines.append((f"peers_{side}_ratio", rounded(ratio), "x"))
    return lines


def summary(rounds: Mapping[str, Sequence[Mapping[str, Any]]], source: str, threads: int, load: float) -> str:
    """What a person reads: what was asked, and of which versions."""
    users = next(iter(rounds.values()))[0]["users"]
    lines = [
        f"Ten items for {users:,} users ({source}), {threads} threads, load before {load:.1f}. The weights are random:",
        "only time is compared. History is masked, but by RecBole, whose full_sort_topk masks none for such a model.",
        "",
        f"{'side':10} {'users/s':>10} {'seconds':>9} {'least':>7} {'most':>7} {'weights':>9}  versions",
    ]
    for side, records in rounds.items():
        seconds = [each["seconds"] for each in records]
        middle, first = statistics.median(seconds), records[0]
        versions = ", ".join(f"{name} {value}" for name, value in first["versions"].items())
        lines.append(
            f"{side:10} {users / middle:10,.0f} {middle:9.2f} {min(seconds):7.2f} {max(seconds):7.2f} "
            f"{first['parameters']:9,}  {versions}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
