"""Draws the bar chart of the README from the finished cells: Base, CI and TSLRec for each backbone on Beauty.

  tslrec figure
  tslrec figure --output /tmp/beauty.svg

Run it again after cells were added, and commit the file: a test compares it with the cells.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tslrec.system.errors import UserError

SUMMARY = "draw the README's bar chart as SVG"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with the cells; default results")
    parser.add_argument(
        "--output", type=Path, default=Path("docs/figures/beauty.svg"), help="default docs/figures/beauty.svg"
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the picture.

    Raises:
        UserError: if a cell cannot be read, no cell belongs in the picture, or it cannot be written.
    """
    from tslrec.reports.paper.cells import read_cells
    from tslrec.reports.paper.readme_figure import readme_figure
    from tslrec.system.files import write_text

    picture = readme_figure(read_cells(arguments.results / "cells"))
    try:
        write_text(arguments.output, picture)
    except OSError as error:
        raise UserError(
            f"--output {arguments.output}: {error.strerror or error}; name a file that can be written"
        ) from error
    print(f"{arguments.output}: drawn")
