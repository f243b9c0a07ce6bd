"""Figure 4: the categories that the language model infers, beside the k-means clusters."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations

from tslrec.reports.paper.document import Chart, Point, Section, Series, TableCell, TableView, digits
from tslrec.reports.paper.sections import SectionInputs, section
from tslrec.reports.paper.seed_rows import Row, mean_cell

CASES = {"C1": "the likeliest category is the cluster", "C2": "the cluster is second or third", "C3": "neither"}
"""The three cases of Figure 4."""

NORMAL = 1.959964
"""A normal distribution has 95 % of its mass within so many standard deviations."""


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share of `count` items (Wilson 1927)."""
    square = NORMAL**2 / count
    centre = (share + square / 2) / (1 + square)
    half = NORMAL / (1 + square) * (share * (1 - share) / count + square / (4 * count)) ** 0.5
    return centre - half, centre + half


@section("figure4", place=50, methods=("ci", "tslrec"))
def figure4(inputs: SectionInputs) -> Section:
    """How often the inferred category is the cluster, and how stable the clusters are."""
    rows = [row for row in inputs.rows if row.method_name == "tslrec"]
    series = []
    for case, meaning in CASES.items():
        points: list[Point | None] = []
        for row in rows:
            share = statistics.fmean(cell.content["stages"]["augment"]["metrics"][case] for cell in row.cells)
            low, high = wilson(share, int(row.cells[0].content["statistics"]["items"]))
            points.append(Point(share, low, high, meaning, row.names))
        series.append(Series(case, points))
    charts = []
    if rows:
        notes = [
            "Intervals: 95 % over items (Wilson), of the mean over seeds. " + "; ".join(map(": ".join, CASES.items()))
        ]
        labels = [row.title_with_variant for row in rows]
        charts.append(Chart("C1, C2 and C3", "share of items", labels, series, number=".3f", notes=notes))
    stability = stability_table(inputs.rows)
    return Section(
        "figure4",
        "Figure 4: inferred categories beside the clusters",
        "Whether the language model puts an item where k-means had put it, and whether k-means would do so again.",
        [stability] if stability.rows else [],
        charts,
        missing_note="" if rows else "no cell of TSLRec yet",
    )


def stability_table(rows: Sequence[Row]) -> TableView:
    """Adjusted Rand index between clusterings: with other seeds of k-means alone, and of the whole run."""
    from sklearn.metrics import adjusted_rand_score

    shown: list[list[TableCell | str]] = []
    of_ci = [row for row in rows if row.method_name == "ci"]
    for row in of_ci:
        alone = [statistics.fmean(cell.content["kmeans_again"]) for cell in row.cells]
        pairs = [
            float(adjusted_rand_score(one.arrays["clusters"], other.arrays["clusters"]))
            for one, other in combinations(row.cells, 2)
        ]
        detail = ", ".join(f"{value:.3f}" for value in pairs)
        whole = TableCell(digits(statistics.fmean(pairs), 3), detail, row.names) if pairs else ""
        clusters = str(row.cells[0].content["config"]["preferences"]["num_clusters"])
        by_seed = mean_cell(alone, row, show=lambda value: digits(value, 3))
        shown.append([row.title_with_variant, clusters, str(len(row.seeds)), by_seed, whole])
    columns = ["", "K", "seeds", "k-means again", "another seed"]
    notes = [
        "Adjusted Rand index, 1 for the same groups and 0 for unrelated ones. k-means again: on the same embeddings by "
        "another seed of k-means. Another seed: each pair of seeds, with backbones trained anew."
    ]
    return TableView("Stability of the clusters", columns, shown, notes)
