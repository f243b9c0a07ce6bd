"""Seconds of our training steps and searches beside the authors' code of the rivals: `make bench-rivals`.

    python benchmarks/beside_rivals.py --side lru --code LLAMAREC       # see benchmarks/rivals_lru.py
    python benchmarks/beside_rivals.py --side p5 --code OPENP5          # a checkout of OpenP5, commit 7f11038
    python benchmarks/beside_rivals.py --side pod --code POD            # a checkout of POD, commit fd31697
    python benchmarks/beside_rivals.py --side beams                     # see benchmarks/rivals/beams.py

Of P5 and POD both sides have the same token ids, sizes, dropout and optimizer. The authors' side pads a batch to its
longest text, ours packs it; POD's authors count the padding of targets in the loss. The sides take turns, a process
each; a ratio is taken within each round, and the median of the rounds is reported, also in `results/bench`. The
machine should do nothing else meanwhile; its load is recorded. The authors' code runs in an environment of its own,
`.venv-rivals`, with the transformers that it was written for (4.26); nothing of it is in this repository.
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
from typing import Any

import yaml

from backbones import HERE, RESULTS, ROOT, one_environment, run
from rivals.histories import interactions
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.system.errors import UserError
from tslrec.system.files import write_json

RIVALS_PYTHON = ROOT / ".venv-rivals" / "bin" / "python"
T5_SIDES = ("p5", "pod")
CONFIGS = ROOT / "configs" / "t5"


def main(words: Sequence[str]) -> None:
    """Measures a side, or hands the words over to the program that does."""
    side, others = side_of(words)
    if side == "lru":
        import rivals_lru

        rivals_lru.main(others)
    elif side == "beams":
        from rivals import beams

        beams.main([word for word in others if word != "--quick"] + QUICK_BEAMS * ("--quick" in others))
    else:
        measure(side, parse(side, others))


QUICK_BEAMS = ["--users", "4", "--items", "200", "--rounds", "1"]
"""What `--quick` stands for in the comparison of searches."""


def side_of(words: Sequence[str]) -> tuple[str, list[str]]:
    """The side, and the words that are its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", required=True, choices=["lru", *T5_SIDES, "beams"])
    found, others = parser.parse_known_args(words)
    return str(found.side), others


def parse(side: str, words: Sequence[str]) -> argparse.Namespace:
    """Reads the command line of P5's or POD's comparison."""
    parser = argparse.ArgumentParser(prog=f"beside_rivals.py --side {side}")
    parser.add_argument("--code", required=True, type=Path, metavar="FOLDER", help="a checkout of the authors' code")
    parser.add_argument("--python", type=Path, default=RIVALS_PYTHON, help="of their environment; see the Makefile")
    parser.add_argument("--data", choices=["beauty", "ml1m"], default="beauty")
    parser.add_argument("--file", type=Path, help="the raw file of the data set; without it, histories are generated")
    parser.add_argument("--t5", choices=sorted(path.stem for path in CONFIGS.glob("*.yaml")), default="small")
    parser.add_argument("--index", choices=["sequential", "random", "collaborative"], default="sequential")
    parser.add_argument("--batch", type=int, default=64, help="texts of a step; default 64, the authors'")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few users and steps: to see that everything runs")
    arguments = parser.parse_args(words)
    if arguments.quick:
        arguments.steps, arguments.rounds, arguments.t5 = 2, 1, "laptop"
    for name in ("batch", "steps", "rounds", "threads"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: one or more")
    return arguments


def measure(side: str, arguments: argparse.Namespace) -> None:
    """Times both sides in turn, prints the figures and writes them unless it is a quick run.

    Raises:
        UserError: if the environment or a file is missing, or a side fails.
    """
    from rivals.t5_batches import save_case
    from rivals.t5_cases import p5_case, pod_case

    if not arguments.python.exists():
        raise UserError(
            f"{arguments.python}: no environment of the authors' code; make .venv-rivals/.installed, or give --python"
        )
    load = os.getloadavg()[0]
    data = interactions(arguments)
    t5 = EncoderDecoderConfig(**yaml.safe_load((CONFIGS / f"{arguments.t5}.yaml").read_text(encoding="utf-8")))
    if side == "p5":
        case = p5_case(data, t5, arguments.index, arguments.batch, arguments.steps)
    else:
        case = pod_case(data, t5, arguments.batch, arguments.steps)
    environment = one_environment(arguments.threads)
    environment["PYTHONPATH"] += os.pathsep + str(HERE)
    logs = RESULTS / "cases"
    logs.mkdir(parents=True, exist_ok=True)
    rounds: dict[str, list[dict[str, Any]]] = {"authors": [], "tslrec": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "case.npz")
        save_case(case, path)
        given = ["--case", str(path), "--steps", str(arguments.steps)]
        commands = {
            "authors": [str(arguments.python), "-m", f"rivals.side_{side}", "--code", str(arguments.code.resolve())],
            "tslrec": [sys.executable, "-m", "rivals.side_tslrec_t5", "--method", side],
        }
        for turn in range(arguments.rounds):
            for name, command in commands.items():
                record = json.loads(run([*command, *given], environment, logs / f"{side}.{name}.log"))
                rounds[name].append(record)
                print(f"round {turn + 1}: {name:8} {1000 * record['seconds']:9.1f} ms a step", flush=True)
    ratios = [theirs["seconds"] / ours["seconds"] for theirs, ours in zip(*rounds.values(), strict=True)]
    figures = {f"{name}_seconds": statistics.median(each["seconds"] for each in of) for name, of in rounds.items()}
    figures["ratio"] = statistics.median(ratios)
    if not arguments.quick:
        settings = {name: getattr(arguments, name) for name in ("t5", "index", "batch", "threads")}
        record = {"figures": figures, "records": rounds, **settings, "load_average_before": round(load, 2)}
        write_json(RESULTS / f"{side}.json", record)
    theirs = rounds["authors"][0]
    print(f"load before {load:.1f}, {arguments.threads} threads, transformers {theirs['transformers']} on their side")
    print(f"{side}_ratio {figures['ratio']:.3g} x")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
