"""Computes each test user's rank again with a trained recommender, and compares it with what the run recorded.

  tslrec verify artifacts/runs/NAME
  tslrec verify FOLDER --run artifacts/runs/NAME     an exported folder against the run that it was made from

Exit code 1 if a rank differs. On another machine or with another number of threads the last bits of a score may
differ, and with them the ranks of near ties. So may those of a language model that was trained and tested in 16 bits
(trainer.llm_precision), since it is loaded in llm.dtype.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SUMMARY = "compute the test ranks of a trained recommender again, and compare"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a finished run, or a folder of tslrec export")
    parser.add_argument("--run", type=Path, metavar="RUN", help="of an exported folder: the run it was made from")
    parser.add_argument("--method", help="of a run that compared several")
    parser.add_argument("--engine", default="auto", help="as tslrec.load takes it; default auto")


def run(arguments: argparse.Namespace) -> None:
    """Prints a line per ranking protocol.

    Raises:
        UserError: if the recommender or the run cannot be loaded.
        SystemExit: with code 1 if a rank differs.
    """
    from tslrec.serving.loading import load
    from tslrec.serving.run_folder import open_run
    from tslrec.serving.verification import require_same_result, verify_ranks

    recorded = open_run(arguments.run or arguments.model, arguments.method)
    recommender = load(arguments.model, method=arguments.method, engine=arguments.engine)
    require_same_result(recommender.facts, recorded.facts(), arguments.model)
    batch_size = recorded.config.training.eval_batch_size
    compared = verify_ranks(recommender.engine, recorded.interactions(), recorded.last[1], batch_size)
    for each in compared:
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in each.metrics.items())
        print(f"{each.protocol}: {each.equal:,} of {each.users:,} ranks equal the recorded ones; {metrics}")
    if any(each.equal < each.users for each in compared):
        sys.exit(1)
