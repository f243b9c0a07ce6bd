"""Table 1: statistics of the data sets."""

from __future__ import annotations

from collections.abc import Mapping

from tslrec.pipeline.choices import choice_place, choice_title
from tslrec.reports.paper.cells import CellResult
from tslrec.reports.paper.document import Section, TableCell, TableView
from tslrec.reports.paper.sections import SectionInputs, section


@section("table1", place=20)
def table1(inputs: SectionInputs) -> Section:
    """Statistics of the data sets as read here, each above the paper's."""
    paper = inputs.published
    rows: list[list[TableCell | str]] = []
    seen: dict[str, CellResult] = {}
    for cell in inputs.cells:
        seen.setdefault(str(cell.content["data"]), cell)
    for data in sorted(seen, key=lambda name: choice_place("data", name)):
        cell = seen[data]
        ours, theirs = cell.content["statistics"], paper.table1.get(data)
        rows.append(
            [
                choice_title("data", data),
                "here",
                *(TableCell(text, sources=(cell.name,)) for text in statistics_of(ours)),
            ]
        )
        if theirs is not None:
            rows.append(["", "paper", *statistics_of(theirs)])
    columns = ("data set", "", "users", "items", "interactions", "density", "average length")
    missing = ", ".join(choice_title("data", name) for name in paper.table1 if name not in seen)
    return Section(
        "table1",
        "Table 1: the data sets",
        "As they are read here, and as the paper states them.",
        [TableView("Statistics", columns, rows)] if rows else [],
        missing_note=f"no cell yet of {missing}" if missing else "",
    )


def statistics_of(row: Mapping[str, float]) -> list[str]:
    """One data set's statistics as texts, in the order of the columns."""
    counts = [f"{row[name]:,.0f}" for name in ("users", "items", "interactions")]
    return [*counts, f"{row['density']:.2%}", f"{row['average_length']:.1f}"]
