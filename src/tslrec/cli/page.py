"""Writes the report page from the finished cells: one HTML file that needs no network.

  tslrec page
  tslrec page --output /tmp/page.html --open

Point at a number on the page to see the runs that it comes from.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tslrec.system.errors import UserError

SUMMARY = "write the report page: every table and figure in one HTML file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder with the cells; default results")
    parser.add_argument("--titles", type=Path, metavar="FILE", help="CSV of MovieLens-1M's items: item_id, title")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="default report.html")
    parser.add_argument("--open", action="store_true", help="open it in the browser if there is a screen")


def run(arguments: argparse.Namespace) -> None:
    """Writes the page.

    Raises:
        UserError: if a cell or the titles cannot be read, or the page cannot be written.
    """
    if arguments.titles is not None and not arguments.titles.is_file():
        raise UserError(
            f"--titles {arguments.titles}: no such file; name a CSV file with the columns item_id and title"
        )
    from tslrec.reports.paper.cells import read_cells
    from tslrec.reports.paper.html import make_page
    from tslrec.reports.paper.sections import SectionInputs, make_section, section_names
    from tslrec.system.files import write_text

    cells = read_cells(arguments.results / "cells")
    inputs = SectionInputs(cells, arguments.results, arguments.titles)
    sections = [make_section(name, inputs) for name in section_names()]
    output: Path = arguments.output
    try:
        write_text(output, make_page(sections, cells))
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror or error}; name a file that can be written") from error
    print(f"{output}: drawn from {len(cells)} cells")
    if arguments.open and has_screen():
        import webbrowser

        webbrowser.open(output.resolve().as_uri())


def has_screen() -> bool:
    """Whether a graphical browser can open; without a screen Python would start one in the terminal."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
