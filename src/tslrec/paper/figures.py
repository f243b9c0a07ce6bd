"""The paper's Figures 4 and 5, and what lies beyond them, from finished cells."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from tslrec.paper.cells import CellResult
from tslrec.paper.rows import Row, by_setting, by_variant, rows_of, spread
from tslrec.paper.views import Chart, Point, Section, Series, Shown, TableView, digits
from tslrec.report import PROTOCOLS

CASES = {"C1": "the likeliest category is the cluster", "C2": "the cluster is second or third", "C3": "neither"}
COMPARED = ("base", "ci", "tslrec")
NORMAL = 1.959964
"""How many standard errors 95 % of a normal distribution lie within."""


def title_of(row: Row) -> str:
    text = f"{row.data}, {row.backbone}"
    return text if row.says("preset") == "tuned" else f"{text}, preset {row.says('preset')}"


def variant_title(row: Row) -> str:
    return title_of(row) if row.variant is None else f"{title_of(row)}, {row.variant}"


def mean_point(values: Sequence[float], row: Row, detail: str = "") -> Point:
    """A mean with its standard deviation over seeds as interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Point(mean, detail=detail, cells=row.names)
    spread = statistics.stdev(values)
    return Point(mean, mean - spread, mean + spread, detail, row.names)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The interval of 95 % of a share of `count` items (Wilson 1927)."""
    square = NORMAL**2 / count
    centre = (share + square / 2) / (1 + square)
    half = NORMAL / (1 + square) * (share * (1 - share) / count + square / (4 * count)) ** 0.5
    return centre - half, centre + half


def figure4(cells: Sequence[CellResult]) -> Section:
    """How the categories that the language model infers agree with the clusters, and how steady those are."""
    rows = [row for row in rows_of(cells) if row.says("method") == "tslrec"]
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
        labels = [variant_title(row) for row in rows]
        charts.append(Chart("C1, C2 and C3", "share of items", labels, series, number=".3f", notes=notes))
    stability = stability_table(cells)
    return Section(
        "figure4",
        "Figure 4: inferred categories beside the clusters",
        "Whether the language model puts an item where k-means had put it, and whether k-means would do so again.",
        [stability] if stability.rows else [],
        charts,
        wanting="" if rows else "no cell of TSLRec yet",
    )


def stability_table(cells: Sequence[CellResult]) -> TableView:
    """Adjusted Rand index of clusters: by other seeds of k-means alone, and by other seeds of the whole."""
    from sklearn.metrics import adjusted_rand_score

    shown: list[list[Shown | str]] = []
    of_ci = [row for row in rows_of(cells) if row.says("method") == "ci"]
    for row in of_ci:
        alone = [statistics.fmean(cell.content["kmeans_again"]) for cell in row.cells]
        pairs = [
            float(adjusted_rand_score(one.arrays["clusters"], other.arrays["clusters"]))
            for one, other in combinations(row.cells, 2)
        ]
        detail = ", ".join(f"{value:.3f}" for value in pairs)
        whole = Shown(digits(statistics.fmean(pairs), 3), detail, row.names) if pairs else ""
        clusters = str(row.cells[0].content["config"]["preferences"]["num_clusters"])
        by_seed = spread(alone, row, show=lambda value: digits(value, 3))
        shown.append([variant_title(row), clusters, str(len(row.seeds)), by_seed, whole])
    columns = ["", "K", "seeds", "k-means again", "another seed"]
    notes = [
        "Adjusted Rand index, 1 for the same groups and 0 for unrelated ones. k-means again: on the same embeddings by "
        "another seed of k-means. Another seed: each pair of seeds, with backbones trained anew."
    ]
    return TableView("Stability of the clusters", columns, shown, notes)


def grouped(cells: Sequence[CellResult], field: str, metric: str) -> list[Chart]:
    """For each data set, backbone and variant, a chart a protocol of a metric of the groups in a field of the cells."""
    compared = [row for row in rows_of(cells) if row.says("method") in COMPARED]
    charts = []
    for rows in (group for members in by_setting(compared) for group in by_variant(members)):
        if len(rows) < 2:
            continue
        groups = rows[0].cells[0].content[field]
        for protocol, title in PROTOCOLS.items():
            series = [
                Series(row.method, [mean_point(values, row) for values in by_group(row, field, f"{protocol}/{metric}")])
                for row in rows
            ]
            labels = [label_of(group) for group in groups]
            charts.append(Chart(f"{variant_title(rows[-1])}, history {title}", f"test {metric}", labels, series))
    return charts


def by_group(row: Row, field: str, metric: str) -> list[list[float]]:
    """A metric of each group, the seeds' values together."""
    return [
        list(values)
        for values in zip(*([g["metrics"][metric] for g in c.content[field]] for c in row.cells), strict=True)
    ]


def label_of(group: Mapping[str, Any]) -> str:
    low, high = group["from"], group["to"]
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def figure5(cells: Sequence[CellResult]) -> Section:
    """Metrics by the activity of users."""
    charts = grouped(cells, "by_activity", "NDCG@10")
    return Section(
        "figure5",
        "Figure 5: users by activity",
        "The tested users in five groups of equal size, by how many interactions each has, rising (the range below "
        "each group). Where many users have equally many, a range is in two groups. Intervals: ± a standard deviation "
        "over seeds.",
        charts=charts,
        wanting="" if charts else "no cells of Base and another method yet",
    )


def popularity(cells: Sequence[CellResult]) -> Section:
    """Metrics and gates by the popularity of items."""
    charts = grouped(cells, "by_popularity", "NDCG@10")
    charts += [gate_chart(row) for row in rows_of(cells) if all("gates" in cell.content for cell in row.cells)]
    return Section(
        "popularity",
        "Beyond the paper: popular items and others",
        "The tested users in five groups of equal size, by how often the item to be found occurs in the training "
        "parts, rising: the long tail on the left. And the gate, averaged over dimensions, of items in ten such "
        "groups: 1 is the id embedding alone, 0 the knowledge alone.",
        charts=charts,
        wanting="" if charts else "no cells of Base and another method yet",
    )


def gate_chart(row: Row) -> Chart:
    """The gate by the popularity of items."""
    groups = [cell.content["gates"] for cell in row.cells]
    points = [mean_point([each[i]["mean"] for each in groups], row) for i in range(len(groups[0]))]
    labels = [label_of(group) for group in groups[0]]
    return Chart(
        f"Gate: {title_of(row)}, {row.method}", "mean gate", labels, [Series(row.method, points)], "lines", number=".3f"
    )


def neighbours(cells: Sequence[CellResult], titles: Callable[[str, str], str]) -> Section:
    """What lies near an item in the space of the knowledge.

    Args:
        cells: the finished ones.
        titles: what to call an item, from the data set's name and the raw id.
    """
    rows = [row for row in rows_of(cells) if all("neighbours" in cell.content for cell in row.cells)]
    shares: list[list[Shown | str]] = []
    names = ("explained", "overlap", "by_chance", "same_cluster", "own_same_cluster")
    for row in rows:
        found = [cell.content["neighbours"] for cell in row.cells]
        line: list[Shown | str] = [title_of(row), row.method]
        for name in names:
            if all(name in each for each in found):
                line.append(spread([each[name] for each in found], row, show=lambda value: digits(value, 3)))
            else:
                line.append("")
        shares.append(line)
    notes = [
        "Explained: the share of the variance of the backbone's own embeddings that a linear map of the knowledge "
        "gives back, for items that the map was not fitted to. The rest is of an item's ten nearest by the cosine of "
        "standardised knowledge. Shared: those that are among its ten nearest by the own embeddings, and by chance "
        "would be. In its cluster: by knowledge, and by own embeddings."
    ]
    columns = ["", "method", "explained", "shared", "by chance", "in its cluster", "by own embeddings"]
    tables = [TableView("Nearest neighbours", columns, shares, notes)] if rows else []
    lists = []
    for row in rows:
        if row.says("method") != "tslrec":
            continue
        data, cell = row.says("data"), row.cells[0]
        lines: list[list[Shown | str]] = [
            [
                titles(data, probe["item"]),
                *(
                    Shown(titles(data, item), f"cosine {cosine:.3f}", (cell.name,))
                    for item, cosine in zip(probe["nearest"], probe["cosines"], strict=True)
                ),
            ]
            for probe in cell.content["neighbours"]["probes"]
        ]
        heads = ["item", *(f"nearest {i}" for i in range(1, max(map(len, lines))))]
        lists.append(TableView(f"{title_of(row)}, seed {cell.seed}: the most popular items", heads, lines))
    return Section(
        "neighbours",
        "Beyond the paper: what the knowledge finds alike",
        "Where the data set names its items the lists have titles, otherwise the ids of the file.",
        tables,
        wanting="" if rows else "no cell with a knowledge embedding yet",
        more=lists,
    )
