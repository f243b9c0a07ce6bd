"""Removes from an artifacts folder what nothing refers to; without --yes it only lists it.

  tslrec clean
  tslrec clean /scratch/artifacts --yes
  tslrec clean --interrupted --yes     also what interrupted runs left

These are kept: the artifacts of each finished run and all artifacts that they were made from; extended knowledge
stores; what a run that is at work uses or makes; and what an interrupted run has made, with its checkpoints, since the
same command goes on with it. --interrupted gives up what interrupted runs left.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "remove artifacts that no run refers to (lists them unless --yes is given)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("folder", nargs="?", type=Path, default=Path("artifacts"), help="default artifacts")
    parser.add_argument("--yes", action="store_true", help="remove them")
    parser.add_argument("--interrupted", action="store_true", help="also what interrupted runs left")


def run(arguments: argparse.Namespace) -> None:
    """Prints the artifacts that nothing refers to, and removes them if `--yes` is given.

    Raises:
        UserError: if the folder does not exist, a record cannot be read, or an artifact cannot be removed.
    """
    from tslrec.pipeline.unfinished import no_run_begins
    from tslrec.system.consoles import plain_console

    console = plain_console()
    if not (arguments.yes and holds_artifacts(arguments.folder)):
        clean(arguments, console)
        return
    with no_run_begins(arguments.folder):
        clean(arguments, console)


def holds_artifacts(folder: Path) -> bool:
    """Whether a folder has results, runs or records of runs: nothing is written into any other."""
    from tslrec.pipeline.inventory import inventory
    from tslrec.pipeline.unfinished import UNFINISHED
    from tslrec.system.run_files import RUNS

    if not folder.is_dir():
        return False
    return any((folder / name).is_dir() for name in (UNFINISHED, RUNS)) or bool(inventory(folder))


def clean(arguments: argparse.Namespace, console: Console) -> None:
    """See `run`; the caller holds back runs that are about to begin."""
    from tslrec.pipeline.inventory import State, inventory, left_over, remove
    from tslrec.pipeline.unfinished import unfinished_runs
    from tslrec.reports.inventory_view import print_inventory, print_unfinished

    root = arguments.folder
    entries, runs = inventory(root), unfinished_runs(root)
    given_up = [each for each in runs if arguments.interrupted and not each.running]
    at_work = [each for each in runs if each not in given_up]
    left = left_over(root, entries, at_work)
    if not arguments.interrupted:
        # Also checkpoints of which no record tells: another version of this program made them.
        left = [each for each in left if not each.can_resume]
    print_inventory(left, console)
    print_unfinished(at_work, [each for each in entries if each.state is State.RUNNING], console)
    if not arguments.yes:
        if left:
            console.print("Nothing was removed; --yes removes all of it")
        return
    for entry in left:
        if not remove(entry):
            console.print(f"{entry.name}: not removed, another process is using it")
    for each in given_up:
        each.remove()
