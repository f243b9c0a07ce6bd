"""How good a method is by the end of each epoch: what a shorter training would have given."""

from __future__ import annotations

from collections.abc import Sequence

from tslrec.paper.cells import CellResult
from tslrec.paper.figures import mean_point, variant_title
from tslrec.paper.rows import Row, by_setting, by_variant, rows_of
from tslrec.paper.views import Chart, Point, Section, Series

EPOCHS = (1, 2, 3, 5, 10, 15, 20, 30)


def learning(cells: Sequence[CellResult]) -> Section:
    """The best validation NDCG@10 by epoch, for all methods of each data set, backbone and variant."""
    with_curve = [cell for cell in cells if cell.content.get("curve")]
    groups = [group for rows in by_setting(rows_of(with_curve)) for group in by_variant(rows)]
    charts = [learning_chart(rows) for rows in groups if len(rows) > 1]
    return Section(
        "learning",
        "Beyond the paper: what a shorter training gives",
        "The best validation NDCG@10 until the end of an epoch of a method's last training, by the protocol that "
        "selects its weights: what stopping there would have kept. The trainings before it are not counted. Intervals: "
        "± a standard deviation over seeds.",
        charts=charts,
        wanting="" if charts else "no cells of two methods with their validations yet",
    )


def learning_chart(rows: Sequence[Row]) -> Chart:
    """One line a method."""
    labels = [*map(str, EPOCHS), "end"]
    series = [Series(row.method, [best_point(row, epochs) for epochs in (*EPOCHS, None)]) for row in rows]
    title = f"{variant_title(rows[-1])}, after so many epochs"
    return Chart(title, "best validation NDCG@10", labels, series, "lines")


def best_point(row: Row, epochs: int | None) -> Point:
    """Of the first epochs, or of all; a training that had ended by then keeps its best."""
    best = [max(cell.content["curve"][:epochs]) for cell in row.cells]
    seeds = ", ".join(f"seed {seed}: {value:.5g}" for seed, value in zip(row.seeds, best, strict=True))
    return mean_point(best, row, seeds)
