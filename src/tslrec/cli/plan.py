"""Forecasts the cost of a run's language model: tokens, operations, time and memory. Nothing runs.

  tslrec plan experiment=tslrec_fmlp_beauty
  tslrec plan method=tslrec data=csv data.path=clicks.csv llm=llama2_7b trainer=ddp

No weights are loaded and no GPU is needed. KEY=VALUE as for `python train.py`.
"""

from __future__ import annotations

import argparse

SUMMARY = "forecast the cost of a run's language model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py")


def run(arguments: argparse.Namespace) -> None:
    """Prints the plan.

    Raises:
        UserError: if the method runs no language model, or the model's sizes or the data cannot be read.
    """
    from tslrec.pipeline.composition import Composer, composing
    from tslrec.pipeline.planning import source_config
    from tslrec.pipeline.recipes import middle_stage_config
    from tslrec.reports.costs.forecast import print_plan_of
    from tslrec.system.consoles import plain_console

    with composing():
        composer = Composer(arguments.overrides)
        config = composer.with_choices({})
        planned = middle_stage_config(config, source_config(config, composer))
    print_plan_of(planned, plain_console())
