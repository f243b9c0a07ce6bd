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
import sys
from collections.abc import Sequence
from pathlib import Path

from recommend_evaluation import measure_evaluation
from recommend_figures import Figures
from recommend_users import measure_users
from tslrec.system.exits import run_program
from tslrec.system.files import write_json
from tslrec.system.meter import Meter


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
