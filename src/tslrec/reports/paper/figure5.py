"""Figure 5: metrics per group of users by activity."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.reports.paper.document import Chart, Section, Series
from tslrec.reports.paper.sections import SectionInputs, section
from tslrec.reports.paper.seed_rows import Row, by_setting, by_variant, common_seeds, mean_point


@section("figure5", place=60, methods=("base", "ci", "tslrec"))
def figure5(inputs: SectionInputs) -> Section:
    """Metrics per group of users by activity."""
    charts = grouped(inputs, "by_activity", "NDCG@10")
    return Section(
        "figure5",
        "Figure 5: users by activity",
        "The tested users in five groups of equal size, by how many interactions each has, rising (the range below "
        "each group). Where many users have equally many, a range is in two groups. Intervals: ± a standard deviation "
        "over seeds.",
        charts=charts,
        missing_note="" if charts else "no cells of Base and another method yet",
    )


def grouped(inputs: SectionInputs, field: str, metric: str) -> list[Chart]:
    """Charts of a metric per group of users: one per data set, backbone, variant and ranking protocol.

    Args:
        inputs: the section's inputs; only its declared methods are drawn.
        field: the cells' field with the groups, `by_activity` or `by_popularity`.
        metric: the metric's name, such as `NDCG@10`.
    """
    compared = inputs.own_rows
    charts = []
    for rows in (group for members in by_setting(compared) for group in by_variant(members)):
        if len(rows) < 2:
            continue
        groups = rows[0].cells[0].content[field]
        for protocol, title in PROTOCOLS.items():
            series = [
                Series(
                    row.method_title,
                    [mean_point(values, row) for values in by_group(row, field, f"{protocol}/{metric}")],
                )
                for row in rows
            ]
            labels = [label_of(group) for group in groups]
            charts.append(Chart(f"{rows[-1].title_with_variant}, history {title}", f"test {metric}", labels, series))
    return charts


def by_group(row: Row, field: str, metric: str) -> list[list[float]]:
    """A metric of each group, with one value per seed."""
    return [
        list(values)
        for values in zip(*([g["metrics"][metric] for g in c.content[field]] for c in row.cells), strict=True)
    ]


def groups_gain(row: Row, rival: Row, metric: str) -> list[float]:
    """Mean difference of each group of users by activity over the common seeds, the least active users first."""
    seeds = common_seeds(row, rival)
    ours, theirs = (
        by_group(Row(tuple(cell for cell in each.cells if cell.seed in seeds)), "by_activity", metric)
        for each in (row, rival)
    )
    return [statistics.fmean(mine) - statistics.fmean(his) for mine, his in zip(ours, theirs, strict=True)]


def label_of(group: Mapping[str, Any]) -> str:
    """The range of a group: interactions of its users, or training occurrences of its items."""
    low, high = group["from"], group["to"]
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"
