"""Removes from an artifacts folder what no recorded run refers to; without --yes it only lists it.

  tslrec clean
  tslrec clean /scratch/artifacts --yes

A run refers to the artifacts of its result and to all artifacts that these were made from. Extended knowledge stores
are kept too. Stages that are running are not touched; stopped ones are removed together with their checkpoints.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "remove artifacts that no run refers to (lists them unless --yes is given)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("folder", nargs="?", type=Path, default=Path("artifacts"), help="default artifacts")
    parser.add_argument("--yes", action="store_true", help="remove them")


def run(arguments: argparse.Namespace) -> None:
    """Prints the artifacts that no run refers to, and removes them if `--yes` is given.

    Raises:
        UserError: if the folder does not exist, or an artifact cannot be removed.
    """
    from rich.console import Console

    from tslrec.pipeline.inventory import inventory, left_over, remove
    from tslrec.reports.inventory_view import print_inventory

    console = Console()
    entries = left_over(arguments.folder, inventory(arguments.folder))
    print_inventory(entries, console)
    if not arguments.yes:
        if entries:
            console.print("Nothing was removed; --yes removes all of it")
        return
    for entry in entries:
        if not remove(entry):
            console.print(f"{entry.name}: not removed, another process is using it", highlight=False)
