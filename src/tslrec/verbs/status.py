"""Lists what an artifacts folder holds: what is done, running, stopped, stale or damaged, with sizes.

tslrec status
tslrec status /scratch/artifacts --check
tslrec status --json status.json
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from tslrec.verbs.audit import refuse_no_place

SUMMARY = "what an artifacts folder holds, and what became of it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", type=Path, default=Path("artifacts"), help="default artifacts")
    parser.add_argument("--check", action="store_true", help="compare every file with its hash")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the list there as well")


def run(arguments: argparse.Namespace) -> None:
    """Prints a line per result, and the sum.

    Raises:
        UserError: if the folder is not there.
    """
    if arguments.json is not None:
        refuse_no_place(arguments.json)
    from rich.console import Console

    from tslrec.files import write_json
    from tslrec.inventory import inventory
    from tslrec.inventory_view import print_inventory

    entries = inventory(arguments.folder, check_files=arguments.check)
    if arguments.json is not None:
        write_json(arguments.json, [{**asdict(each), "folders": [str(f) for f in each.folders]} for each in entries])
    print_inventory(entries, Console())
