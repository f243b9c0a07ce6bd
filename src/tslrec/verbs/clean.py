"""Removes from an artifacts folder what no recorded run refers to; without --yes it only says what that is.

  tslrec clean
  tslrec clean /scratch/artifacts --yes

A run refers to the artifacts of its result, and to all that these were made from. Extended knowledge stores stay as
well. What is running is left alone; what was stopped goes, with its checkpoints.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "removes what no run refers to (--yes; otherwise only says what)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path("artifacts"), help="default artifacts")
    parser.add_argument("--yes", action="store_true", help="remove it")


def run(arguments: argparse.Namespace) -> None:
    """Prints what is left over, and removes it if told to.

    Raises:
        UserError: if the folder is not there, or what is in it cannot be removed.
    """
    from rich.console import Console

    from tslrec.inventory import inventory, left_over, remove
    from tslrec.inventory_view import print_inventory

    console = Console()
    entries = left_over(arguments.folder, inventory(arguments.folder))
    print_inventory(entries, console)
    if not arguments.yes:
        if entries:
            console.print("Nothing was removed; --yes removes all of it")
        return
    for entry in entries:
        if not remove(entry):
            console.print(f"{entry.name}: left alone, since somebody works on it now", highlight=False)
