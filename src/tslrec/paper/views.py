"""What a table or a figure says, before it is printed or drawn; every number with the cells that it is from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shown:
    """A number, or a word, in a table.

    Attributes:
        text: as it is read.
        detail: more of it, such as the seeds' own values.
        cells: the names of the cells, or the file, that it is from.
        mark: `best` or `second` of its column; `significant`; `doubt` where it cannot be right.
    """

    text: str
    detail: str = ""
    cells: tuple[str, ...] = ()
    mark: str = ""


@dataclass(frozen=True)
class TableView:
    """A table; a cell of it is a `Shown` where it is measured, and text where it is not."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Shown | str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Point:
    """A value of a chart, with an interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None
    detail: str = ""
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """Values along the labels of a chart; None where one is missing."""

    name: str
    points: Sequence[Point | None]


@dataclass(frozen=True)
class Chart:
    """A figure: bars side by side, or lines.

    Attributes:
        labels: along the horizontal axis.
        axis: what the vertical axis measures.
        kind: `bars` or `lines`.
        scale: `linear` from 0, or `log`.
        number: the format of its numbers.
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
    """One table or figure of the paper, or one beyond it.

    Attributes:
        key: what commands and links call it.
        wanting: what is not there yet, in one line; empty where all is.
    """

    key: str
    title: str
    text: str
    tables: Sequence[TableView] = ()
    charts: Sequence[Chart] = ()
    wanting: str = ""
    more: Sequence[TableView] = field(default=())
    """Tables that are folded away."""


def digits(value: float, places: int = 4) -> str:
    """A share of 1 as the paper prints it, without the 0 before the point."""
    text = f"{value:.{places}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def chart_table(chart: Chart) -> TableView:
    """A chart's numbers as a table."""
    rows = []
    for i, label in enumerate(chart.labels):
        row: list[Shown | str] = [label]
        for series in chart.series:
            point = series.points[i]
            if point is None:
                row.append("")
                continue
            text = format(point.value, chart.number)
            if point.low is not None and point.high is not None:
                text += f" ({format(point.low, chart.number)} … {format(point.high, chart.number)})"
            row.append(Shown(text, point.detail, point.cells))
        rows.append(row)
    return TableView(f"{chart.title}: {chart.axis}", ["", *(series.name for series in chart.series)], rows, chart.notes)
