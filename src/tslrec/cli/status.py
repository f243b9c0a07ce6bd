"""Lists the stage results in an artifacts folder: done, running, stopped, stale or damaged, with sizes.

  tslrec status
  tslrec status /scratch/artifacts --check
  tslrec status --json status.json

`tslrec clean` removes the results that no run refers to.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from tslrec.reports import json_file

SUMMARY = "list the stage results in an artifacts folder, with state and size"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("folder", nargs="?", type=Path, default=Path("artifacts"), help="default artifacts")
    parser.add_argument("--check", action="store_true", help="also compare every file with its hash")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the list to FILE")


def run(arguments: argparse.Namespace) -> None:
    """Prints a line per stage result, and the total.

    Raises:
        UserError: if the folder does not exist.
    """
    if arguments.json is not None:
        json_file.refuse_no_place(arguments.json)
    from tslrec.pipeline.inventory import inventory
    from tslrec.reports.inventory_view import print_inventory
    from tslrec.system.consoles import plain_console

    entries = inventory(arguments.folder, check_files=arguments.check)
    if arguments.json is not None:
        listed = [{**asdict(each), "folders": list(map(str, each.folders))} for each in entries]
        json_file.write(arguments.json, listed)
    print_inventory(entries, plain_console())
