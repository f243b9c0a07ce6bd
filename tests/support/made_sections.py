"""Sections of the paper from made-up cells, and their tables by column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from support.checkout import CHECKOUT
from tslrec.reports.paper.cells import CellResult
from tslrec.reports.paper.document import Section, TableCell, TableView
from tslrec.reports.paper.sections import (
    SectionInputs,
    make_section,
)

RESULTS = CHECKOUT / "results"


def section_of(name: str, cells: Sequence[CellResult], results: Path, titles: Path | None = None) -> Section:
    return make_section(name, SectionInputs(cells, results, titles))


def text(value: TableCell | str) -> str:
    return value.text if isinstance(value, TableCell) else value


def table(tables: Sequence[TableView], *words: str) -> list[dict[str, TableCell | str]]:
    """The rows of the one table whose title has some words, by column; of columns of the same name the first."""
    (found,) = [each for each in tables if all(word in each.title for word in words)]
    return [dict(reversed(list(zip(found.columns, row, strict=True)))) for row in found.rows]


def measured(rows: Sequence[dict[str, TableCell | str]]) -> list[dict[str, TableCell | str]]:
    """The rows that have cells."""
    return [row for row in rows if text(row["seeds"]) != "missing"]
