"""Beyond the paper: what a second stage gains on a tuned base, rung by rung, with controls."""

from __future__ import annotations

from collections.abc import Mapping

from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.evaluation.significance import LEVEL, Comparison, holm
from tslrec.reports.paper.comparisons import TESTS, compared, comparison_table, probability
from tslrec.reports.paper.document import Chart, Point, Section, Series, TableCell, TableView, digits
from tslrec.reports.paper.grid import read_grid
from tslrec.reports.paper.ladder_groups import group_charts
from tslrec.reports.paper.ladder_rows import REMOVED, RUNG_TITLES, Step, best_before, controls_of, steps
from tslrec.reports.paper.sections import SectionInputs, section

METRIC = "NDCG@10"
"""The metric that the ladder is judged by."""

NOTES = (
    *TESTS,
    "Holds: the bootstrap after Holm's correction over the rows of this table that are no controls, and the t-test "
    "over seeds, are both at most .05. Training: seconds of all stages, those of the models that are summed or asked "
    "among them, beside those of Base, where all ran on the same kind of machine. Models: how many trained models "
    "answer a request.",
    f"({REMOVED}): the method lost and is no longer in the project; results/grid.yaml names the last commit that has "
    "it.",
)

FAR_BEHIND = -0.1
"""A relative gain; the charts leave out rows whose whole interval is below it."""

Measured = list[tuple[Step, Comparison]]
"""Steps with their gain over Base."""


@section("ladder", place=65, rungs=True)
def ladder(inputs: SectionInputs) -> Section:
    """Each rung beside the tuned Base, its controls, and the rung before.

    Raises:
        UserError: if the grid or a cell cannot be read.
    """
    path = inputs.results / "grid.yaml"
    grid = read_grid(path) if path.is_file() else []
    found = steps(inputs.rows, grid)
    words = {step.row.names: step.words for step in found}
    tables, more = [], []
    by_protocol: dict[str, Measured] = {}
    for protocol, title in PROTOCOLS.items():
        measured = [(step, compared(step.row, step.base, protocol, METRIC)) for step in found]
        if not measured:
            continue
        tables.append(ladder_table(measured, protocol, f"Over SASRec's tuned Base, history {title}"))
        by_protocol[f"history {title}"] = measured
        own = [(step.row, step.own) for step in found if step.own is not None]
        if own:
            more.append(
                comparison_table(own, protocol, [METRIC], f"Over the Base of its own backbone, history {title}", words)
            )
        pairs = [(step.row, other) for step in found if not step.control for other in controls_of(step, found)]
        if pairs:
            more.append(comparison_table(pairs, protocol, [METRIC], f"Over the controls, history {title}", words))
        before = [(step.row, best_before(step, found, f"{protocol}/{METRIC}")) for step in found if not step.control]
        ranked = [(row, other) for row, other in before if other is not None]
        if ranked:
            more.append(comparison_table(ranked, protocol, [METRIC], f"Over the rung before, history {title}", words))
    charts = [*gain_charts(by_protocol), *group_charts(found, METRIC)]
    finished = {name for step in found for name in step.row.names}
    missing = [cell.name for cell in grid if cell.rung and not cell.removed and cell.name not in finished]
    return Section(
        "ladder",
        "Beyond the paper: what a second stage gains on a tuned base",
        "Base is SASRec's with the settings that validation chose. Each rung gives a second stage something else that "
        "first stages, or the items' titles, know; controls are as large and as costly, without the knowledge. The "
        "rung before is that row of it which validation would choose.",
        tables,
        charts,
        missing_note=f"{len(missing)} cells, {missing[0]} first" if missing else "",
        more=more,
    )


def ladder_table(measured: Measured, protocol: str, title: str) -> TableView:
    """Every row over its Base; Holm's correction covers the rows that are no controls.

    Args:
        measured: the steps, in order.
        protocol: the ranking protocol.
        title: the table's heading.
    """
    tested = [each.bootstrap for step, each in measured if not step.control]
    adjusted = iter(holm(tested))
    lines: list[list[TableCell | str]] = []
    for step, each in measured:
        p_value = None if step.control else next(adjusted)
        names = (*step.row.names, *step.base.names)
        detail = f"{each.seeds} seeds, {each.users:,} users"
        lines.append(
            [
                RUNG_TITLES[step.rung],
                step.row.data_title,
                step.title,
                str(len(step.row.seeds)),
                step.row.mean_cell(f"test/{protocol}/{METRIC}"),
                TableCell(f"{each.relative(each.gain):+.1%}", detail, names),
                TableCell(f"{each.relative(each.low):+.1%} … {each.relative(each.high):+.1%}", detail, names),
                "" if p_value is None else TableCell(probability(p_value), f"a family of {len(tested)} tests", names),
                TableCell(probability(each.t_seeds), detail, names) if each.t_seeds is not None else "",
                TableCell(probability(each.t_users), detail, names),
                verdict(each, p_value),
                TableCell(training_time(step), f"{step.seconds:,.0f} s", names),
                str(step.models_served),
            ]
        )
    columns = (
        "rung", "data set", "", "seeds", METRIC, "over Base", "95 %", "Holm", "t, seeds", "t, users", "holds",
        "training", "models",
    )  # fmt: skip
    return TableView(title, columns, lines, NOTES)


def training_time(step: Step) -> str:
    """The time of its stages beside that of Base."""
    return f"{step.seconds / step.base_seconds:.1f} ×" if step.comparable_times else "other machine"


def verdict(found: Comparison, bootstrap: float | None) -> str:
    """Whether a gain over Base is shown; one seed is a hint.

    Args:
        found: the comparison.
        bootstrap: its p-value after Holm's correction; None of a control, which is no part of the family.
    """
    if bootstrap is None:
        return ""
    if found.t_seeds is None:
        return "one seed"
    return "yes" if found.gain > 0 and max(bootstrap, found.t_seeds) <= LEVEL else "no"


def gain_charts(measured: Mapping[str, Measured]) -> list[Chart]:
    """The relative gains with the bootstrap's intervals, one chart per data set.

    A backbone that is far behind (`FAR_BEHIND`) would flatten the others; the tables have it.

    Args:
        measured: the steps, in the same order for each name of a ranking protocol.
    """
    charts = []
    together = list(zip(*measured.values(), strict=True))
    for data in dict.fromkeys(step.row.data_title for ((step, _), *_) in together):
        on_data = [pairs for pairs in together if pairs[0][0].row.data_title == data]
        near = [pairs for pairs in on_data if any(each.relative(each.high) > FAR_BEHIND for _, each in pairs)]
        shown = near or on_data
        series = [Series(name, [gain_point(*pairs[i]) for pairs in shown]) for i, name in enumerate(measured)]
        labels = [step.title for ((step, _), *_) in shown]
        heading = f"{data}: gain in {METRIC} over SASRec's tuned Base"
        charts.append(Chart(heading, "gain, %", labels, series, kind="rows", number="+.1f"))
    return charts


def gain_point(step: Step, each: Comparison) -> Point:
    """A relative gain in percent with its interval."""
    value, low, high = (100 * each.relative(number) for number in (each.gain, each.low, each.high))
    detail = f"{digits(each.rival)} {each.gain:+.4f}, {each.seeds} seeds"
    return Point(value, low, high, detail, (*step.row.names, *step.base.names))
