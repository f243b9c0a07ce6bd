"""Beyond the paper: metrics per group of users by the popularity of their test item, and the gate by popularity."""

from __future__ import annotations

from tslrec.reports.paper.document import Chart, Section, Series
from tslrec.reports.paper.figure5 import grouped, label_of
from tslrec.reports.paper.sections import SectionInputs, section
from tslrec.reports.paper.seed_rows import Row, mean_point


@section("popularity", place=90, methods=("base", "ci", "tslrec"))
def popularity(inputs: SectionInputs) -> Section:
    """Metrics and gate values by the popularity of items."""
    charts = grouped(inputs, "by_popularity", "NDCG@10")
    charts += [gate_chart(row) for row in inputs.rows if all("gates" in cell.content for cell in row.cells)]
    return Section(
        "popularity",
        "Beyond the paper: popular items and others",
        "The tested users in five groups of equal size, by how often the item to be found occurs in the training "
        "parts, rising: the long tail on the left. And the gate, averaged over dimensions, of items in ten such "
        "groups: 1 is the id embedding alone, 0 the knowledge alone.",
        charts=charts,
        missing_note="" if charts else "no cells of Base and another method yet",
    )


def gate_chart(row: Row) -> Chart:
    """The mean gate of ten groups of items by popularity."""
    groups = [cell.content["gates"] for cell in row.cells]
    points = [mean_point([each[i]["mean"] for each in groups], row) for i in range(len(groups[0]))]
    labels = [label_of(group) for group in groups[0]]
    return Chart(
        f"Gate: {row.title}, {row.method_title}",
        "mean gate",
        labels,
        [Series(row.method_title, points)],
        "lines",
        number=".3f",
    )
