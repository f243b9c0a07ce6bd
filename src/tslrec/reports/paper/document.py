"""The content of tables and figures, before it is printed or drawn; every number names the cells it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TableCell:
    """A measured number, or a word derived from one, in a table.

    Attributes:
        text: what the table shows.
        detail: more about it for a tooltip, such as the value of each seed.
        sources: the names of the cells of the grid, or of the file, that it comes from.
        mark: `best` or `second` of its column; `significant`; `inconsistent`: the number cannot be right.
    """

    text: str
    detail: str = ""
    sources: tuple[str, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class TableView:
    """A table.

    Attributes:
        title: the heading.
        columns: the heading of each column.
        rows: one entry per column: a `TableCell` if it was measured, a plain text if not.
        notes: sentences below the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[TableCell | str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Point:
    """A value in a chart.

    Attributes:
        value: in the unit of the chart's axis.
        low: lower end of its interval (the section's text says of what kind); None: no interval.
        high: upper end of its interval.
        detail: more about it for a tooltip.
        sources: as of `TableCell`.
    """

    value: float
    low: float | None = None
    high: float | None = None
    detail: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """Values along the labels of a chart.

    Attributes:
        name: its entry in the legend.
        points: one per label; None where a value is missing.
    """

    name: str
    points: Sequence[Point | None]


@dataclass(frozen=True)
class Chart:
    """A figure: bars side by side, lines, or rows of dots.

    Attributes:
        title: the heading.
        axis: what the axis of the values measures, with the unit; it is the vertical one, but for rows.
        labels: along the other axis.
        series: the values.
        kind: `bars`, `lines`, or `rows` (for labels that are whole sentences).
        scale: `linear` (bars start at 0) or `log`.
        number: format specification of its numbers.
        notes: sentences below the chart.
    """

    title: str
    axis: str
    labels: Sequence[str]
    series: Sequence[Series]
    kind: str = "bars"
    scale: str = "linear"
    number: str = ".4f"
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Section:
    """One table or figure of the paper, or one beyond the paper.

    Attributes:
        key: its name in commands and links.
        title: the heading.
        text: what it shows, in a few sentences.
        tables: always shown.
        charts: always shown.
        missing_note: one line that says which results are not there yet; empty: all are there.
        more: tables that the page folds away.
    """

    key: str
    title: str
    text: str
    tables: Sequence[TableView] = ()
    charts: Sequence[Chart] = ()
    missing_note: str = ""
    more: Sequence[TableView] = field(default=())


def digits(value: float, places: int = 4) -> str:
    """A fraction as the paper prints it, without the 0 before the point: `.0458`."""
    text = f"{value:.{places}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def chart_table(chart: Chart) -> TableView:
    """The numbers of a chart as a table."""
    rows = []
    for i, label in enumerate(chart.labels):
        row: list[TableCell | str] = [label]
        for series in chart.series:
            point = series.points[i]
            if point is None:
                row.append("")
                continue
            text = format(point.value, chart.number)
            if point.low is not None and point.high is not None:
                text += f" ({format(point.low, chart.number)} … {format(point.high, chart.number)})"
            row.append(TableCell(text, point.detail, point.sources))
        rows.append(row)
    return TableView(f"{chart.title}: {chart.axis}", ["", *(series.name for series in chart.series)], rows, chart.notes)
