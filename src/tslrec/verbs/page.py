"""Draws the report page from the finished cells: one HTML file that needs no network.

tslrec page
tslrec page --output /tmp/page.html --open
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tslrec.errors import UserError

SUMMARY = "the report page: every table and figure in one HTML file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=Path("results"), help="default results")
    parser.add_argument("--titles", type=Path, metavar="FILE", help="CSV of MovieLens-1M's items: item_id, title")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="default report.html")
    parser.add_argument("--open", action="store_true", help="show it in the browser, where there is a screen")


def run(arguments: argparse.Namespace) -> None:
    """Writes the page.

    Raises:
        UserError: if a cell cannot be read, or the page cannot be written.
    """
    if arguments.titles is not None and not arguments.titles.is_file():
        raise UserError(
            f"--titles {arguments.titles}: no such file; name a CSV file with the columns item_id and title"
        )
    from tslrec.paper.cells import read_cells
    from tslrec.paper.page import make_page
    from tslrec.paper.sections import NAMES, make_section

    cells = read_cells(arguments.results / "cells")
    sections = [make_section(name, cells, arguments.results, arguments.titles) for name in NAMES]
    output: Path = arguments.output
    aside = output.with_name(output.name + ".writing")
    try:
        aside.write_text(make_page(sections, cells), encoding="utf-8")
        aside.replace(output)
    except OSError as error:
        raise UserError(f"--output {output}: {error.strerror or error}; name a file that can be written") from error
    print(f"{output}: drawn from {len(cells)} cells")
    if arguments.open and has_screen():
        import webbrowser

        webbrowser.open(output.resolve().as_uri())


def has_screen() -> bool:
    """Whether a browser could show anything; elsewhere one for the terminal would be started."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
