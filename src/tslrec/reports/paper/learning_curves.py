"""Beyond the paper: the best validation metric after so many epochs, which a shorter training would have reached."""

from __future__ import annotations

from collections.abc import Sequence

from tslrec.reports.paper.document import Chart, Point, Section, Series
from tslrec.reports.paper.sections import SectionInputs, section
from tslrec.reports.paper.seed_rows import Row, by_setting, by_variant, mean_point, rows_of

EPOCHS = (1, 2, 3, 5, 10, 15, 20, 30)
"""The epochs after which the charts have a point; a last one follows at the end of training."""


@section("learning", place=80, methods=("base", "ci", "tslrec"))
def learning(inputs: SectionInputs) -> Section:
    """The best validation NDCG@10 so far, for all methods of each data set, backbone and variant."""
    with_curve = [cell for cell in inputs.cells if cell.content.get("curve")]
    groups = [group for rows in by_setting(rows_of(with_curve)) for group in by_variant(rows)]
    charts = [learning_chart(rows) for rows in groups if len(rows) > 1]
    return Section(
        "learning",
        "Beyond the paper: what a shorter training gives",
        "The best validation NDCG@10 until the end of an epoch of a method's last training, by the protocol that "
        "selects its weights: what stopping there would have kept. The trainings before it are not counted. Intervals: "
        "± a standard deviation over seeds.",
        charts=charts,
        missing_note="" if charts else "no cells of two methods with their validations yet",
    )


def learning_chart(rows: Sequence[Row]) -> Chart:
    """One chart with a line per method."""
    labels = [*map(str, EPOCHS), "end"]
    series = [Series(row.method_title, [best_point(row, epochs) for epochs in (*EPOCHS, None)]) for row in rows]
    title = f"{rows[-1].title_with_variant}, after so many epochs"
    return Chart(title, "best validation NDCG@10", labels, series, "lines")


def best_point(row: Row, epochs: int | None) -> Point:
    """The best of the first `epochs` epochs, or of all if None; a training that ended earlier keeps its best."""
    best = [max(cell.content["curve"][:epochs]) for cell in row.cells]
    seeds = ", ".join(f"seed {seed}: {value:.5g}" for seed, value in zip(row.seeds, best, strict=True))
    return mean_point(best, row, seeds)
