"""All tables and figures by name, and which cells each is made of."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tslrec.paper import figures, tables
from tslrec.paper.cells import CellResult
from tslrec.paper.claims import claims
from tslrec.paper.figure3 import figure3
from tslrec.paper.grid import Cell
from tslrec.paper.learning import learning
from tslrec.paper.rows import ABLATIONS
from tslrec.paper.tables import PaperFigures
from tslrec.paper.views import Section

METHODS_OF: Mapping[str, tuple[str, ...]] = {
    "claims": ("base", "ci", "tslrec"),
    "table1": (),
    "table2": ("base", "ci", "tslrec", "e4srec"),
    "figure3": (),
    "figure4": ("ci", "tslrec"),
    "figure5": ("base", "ci", "tslrec"),
    "ablations": ("base", "ci", "tslrec", *ABLATIONS),
    "learning": ("base", "ci", "tslrec"),
    "popularity": ("base", "ci", "tslrec"),
    "neighbours": ("tslrec", *ABLATIONS),
}
"""The methods whose cells a table or figure wants; those of no method draw on what there is."""

NAMES = tuple(METHODS_OF)


def wanted_by(names: Sequence[str], cells: Sequence[Cell]) -> list[Cell]:
    """The cells of a grid that some tables and figures want, in the grid's order."""
    ablated = {(cell.data, cell.model, cell.preset) for cell in cells if cell.method in ABLATIONS}
    found = []
    for cell in cells:
        for name in names:
            beside = name != "ablations" or (cell.data, cell.model, cell.preset) in ablated
            if cell.method in METHODS_OF[name] and beside:
                found.append(cell)
                break
    return found


def make_section(name: str, cells: Sequence[CellResult], results: Path, titles: Path | None = None) -> Section:
    """One table or figure.

    Args:
        name: one of `NAMES`.
        cells: the finished ones.
        results: the folder with the paper's own figures and the benchmarks.
        titles: a CSV file with the titles of MovieLens-1M's items, by `item_id` and `title`.
    """
    match name:
        case "claims":
            return claims(cells, results, PaperFigures.read(results / "paper.json"))
        case "table1":
            return tables.table1(cells, PaperFigures.read(results / "paper.json"))
        case "table2":
            return tables.table2(cells, PaperFigures.read(results / "paper.json"))
        case "figure3":
            return figure3(cells, results)
        case "figure4":
            return figures.figure4(cells)
        case "figure5":
            return figures.figure5(cells)
        case "ablations":
            return tables.ablations(cells)
        case "learning":
            return learning(cells)
        case "popularity":
            return figures.popularity(cells)
        case "neighbours":
            return figures.neighbours(cells, titles_of(titles))
        case _:
            raise ValueError(f"no table or figure '{name}'")


def titles_of(path: Path | None) -> Callable[[str, str], str]:
    """What to call an item of a data set: its title where there is one, otherwise its raw id."""
    titles: dict[str, str] = {}
    if path is not None and path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            titles = {row["item_id"]: row["title"] for row in csv.DictReader(file)}
    return lambda data, item: titles.get(item, item) if data == "ml1m" else item
