"""Where the rungs of the ladder gain: users by the degree of the item to be found, and by their own activity.

Shapes: T tested users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.evaluation.user_groups import degree_labels, gains
from tslrec.reports.paper.cells import DEGREES, CellResult
from tslrec.reports.paper.document import Chart, Point, Series
from tslrec.reports.paper.figure5 import groups_gain, label_of
from tslrec.reports.paper.grid import RUNGS
from tslrec.reports.paper.ladder_rows import Step
from tslrec.reports.paper.seed_rows import common_seeds


def group_charts(found: Sequence[Step], metric: str) -> list[Chart]:
    """Gains over Base per group of users, of the row of each rung that validation would choose.

    Args:
        found: the steps.
        metric: such as `NDCG@10`.
    """
    charts = []
    for ground in dict.fromkeys(step.base.names for step in found):
        own = [step for step in found if step.base.names == ground and not step.control]
        for protocol, title in PROTOCOLS.items():
            chosen = chosen_steps(own, f"{protocol}/{metric}")
            heading = f"{chosen[0].base.title}, history {title}" if chosen else ""
            if chosen and (groups_T := groups_by_degree(chosen)) is not None:
                series = [Series(step.title, degree_points(step, protocol, metric, groups_T)) for step in chosen]
                charts.append(
                    Chart(
                        f"{heading}: by how often the item to be found was trained",
                        f"gain in {metric}",
                        degree_labels(),
                        series,
                        number="+.4f",
                    )
                )
            if chosen:
                labels = [label_of(group) for group in chosen[0].base.cells[0].content["by_activity"]]
                series = [Series(step.title, activity_points(step, f"{protocol}/{metric}")) for step in chosen]
                charts.append(
                    Chart(f"{heading}: by the user's activity", f"gain in {metric}", labels, series, number="+.4f")
                )
    return charts


def chosen_steps(steps: Sequence[Step], metric: str) -> list[Step]:
    """The row of each rung with the best validation metric, from the lowest rung."""
    rungs = [[step for step in steps if step.rung == rung] for rung in RUNGS]
    return [max(rung, key=lambda step: step.validation(metric)) for rung in rungs if rung]


def groups_by_degree(steps: Sequence[Step]) -> NDArray[np.uint8] | None:
    """The group of each tested user's item to be found, `[T]`; None if no cell has it.

    It is the same in all cells of a data set; those of the first runs do not hold it.
    """
    cells = (cell for step in steps for cell in (*step.row.cells, *step.base.cells))
    return next((cell.arrays[DEGREES] for cell in cells if DEGREES in cell.arrays), None)


def degree_points(step: Step, protocol: str, metric: str, groups_T: NDArray[np.uint8]) -> list[Point | None]:
    """The mean gain of the users in each group by degree, over the common seeds; None where there are no users.

    Args:
        step: of the ladder.
        protocol: the ranking protocol.
        metric: such as `NDCG@10`.
        groups_T: see `groups_by_degree`.
    """
    seeds = common_seeds(step.row, step.base)
    mine, base = ([cell for cell in row.cells if cell.seed in seeds] for row in (step.row, step.base))
    difference_T = np.mean([per_user(cell, protocol, metric) for cell in mine], axis=0) - np.mean(
        [per_user(cell, protocol, metric) for cell in base], axis=0
    )
    names = tuple(cell.name for cell in (*mine, *base))
    found = [difference_T[groups_T == group] for group in range(len(degree_labels()))]
    return [Point(float(each.mean()), detail=f"{len(each):,} users", sources=names) if len(each) else None
            for each in found]  # fmt: skip


def per_user(cell: CellResult, protocol: str, metric: str) -> NDArray[np.float64]:
    """What each tested user adds to a metric, `[T]`."""
    name, k = metric.split("@")
    return gains(cell.ranks(protocol), name, int(k))


def activity_points(step: Step, metric: str) -> list[Point | None]:
    """The mean gain in each group by activity, over the common seeds."""
    seeds = common_seeds(step.row, step.base)
    names = tuple(cell.name for row in (step.row, step.base) for cell in row.cells if cell.seed in seeds)
    return [Point(gain, sources=names) for gain in groups_gain(step.row, step.base, metric)]
