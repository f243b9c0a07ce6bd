"""Charts as SVG: bars side by side, or lines, with intervals and a legend; tooltips name the source of each value.

Colours are CSS classes, so that the page's style can choose them for its light and dark modes. Sizes are in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tslrec.reports.paper.document import Chart, Point

WIDTH, PLOT_HEIGHT = 490.0, 200.0
LEFT, RIGHT, TOP = 62.0, 10.0, 34.0
CHARACTER = 6.3
"""Approximate width of one character of a label."""

LINE = 15.0
"""Height of a line of text."""

SLANT, STEEP = 35, 60
"""Angles in degrees of labels that do not fit side by side; steep if the first label would leave the picture."""

COLOURS = 8
"""Number of colour classes; further series start again at the first."""


@dataclass(frozen=True)
class Axis:
    """A vertical axis.

    Attributes:
        ticks: the marked values, rising; the first is the bottom.
        place: maps a value to its height above the bottom, as a fraction of the axis.
    """

    ticks: Sequence[float]
    place: Callable[[float], float]

    def y(self, value: float) -> float:
        """The vertical position of a value; values off the axis are moved to its ends."""
        return TOP + PLOT_HEIGHT * (1 - min(1.0, max(0.0, self.place(value))))


def draw(chart: Chart) -> str:
    """The chart as an `<svg>` element."""
    axis = axis_of(chart)
    band = (WIDTH - LEFT - RIGHT) / max(1, len(chart.labels))
    label_parts, label_height = labels(chart, band)
    below = LINE * (len(legend_lines(chart, WIDTH)) - 1)
    height = below + TOP + PLOT_HEIGHT + label_height + 8
    parts = [
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(f"{chart.title}: {chart.axis}")}">',
        *legend(chart, WIDTH),
        f'<g class="plot" transform="translate(0 {below:g})">',
        *grid(axis, chart),
        *(bars(chart, axis, band) if chart.kind == "bars" else lines(chart, axis, band)),
        *label_parts,
        "</g></svg>",
    ]
    return "\n".join(parts)


def values_of(chart: Chart) -> list[float]:
    """All values of a chart and the ends of their intervals."""
    points = [point for series in chart.series for point in series.points if point is not None]
    return [value for each in points for value in (each.value, each.low, each.high) if value is not None]


def axis_of(chart: Chart) -> Axis:
    """The vertical axis: whole decades if logarithmic; else from 0 for bars, over the range of the values for lines."""
    values = values_of(chart) or [0.0, 1.0]
    if chart.scale == "log":
        positive = [value for value in values if value > 0] or [1.0]
        low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
        high = max(high, low + 1)
        ticks = [10.0**power for power in range(low, high + 1)]
        return Axis(ticks, lambda value: (math.log10(value) - low) / (high - low) if value > 0 else 0.0)
    bottom, top = min(values), max(values)
    if chart.kind == "bars":
        bottom = min(0.0, bottom)
    ticks = nice_ticks(bottom, top)
    return Axis(ticks, lambda value: (value - ticks[0]) / (ticks[-1] - ticks[0]))


def nice_ticks(bottom: float, top: float) -> list[float]:
    """About five round numbers that cover the range from `bottom` to `top`."""
    span = (top - bottom) or abs(top) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / 4 * 0.999)
    first, last = math.floor(bottom / step + 1e-9), math.ceil(top / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def grid(axis: Axis, chart: Chart) -> Iterator[str]:
    """Grid lines, numbers and name of the vertical axis."""
    for tick in axis.ticks:
        y = axis.y(tick)
        yield f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{tick:,.10g}</text>'
    middle = TOP + PLOT_HEIGHT / 2
    yield (
        f'<text class="axis" x="12" y="{middle:g}" text-anchor="middle" '
        f'transform="rotate(-90 12 {middle:g})">{escape(chart.axis)}</text>'
    )


def legend_lines(chart: Chart, width: float) -> list[list[int]]:
    """The numbers of the series in each line of the legend; one empty line for a single series.

    Args:
        chart: the chart.
        width: of the picture.
    """
    found: list[list[int]] = [[]]
    if len(chart.series) < 2:
        return found
    used = 0.0
    for i, series in enumerate(chart.series):
        own = entry_width(series.name)
        if found[-1] and used + own > width - RIGHT - 4:
            found.append([])
            used = 0.0
        found[-1].append(i)
        used += own
    return found


def entry_width(name: str) -> float:
    """The width of a series' entry in the legend."""
    return len(name) * CHARACTER + 26


def legend(chart: Chart, width: float) -> Iterator[str]:
    """The names of the series, above the plot, in as many lines as they need; nothing for a single series.

    Args:
        chart: the chart.
        width: of the picture.
    """
    found = [[(i, entry_width(chart.series[i].name)) for i in members] for members in legend_lines(chart, width)]
    longest = max(sum(own for _, own in members) for members in found)
    for line, members in enumerate(found):
        x, y = max(4.0, min(LEFT, width - RIGHT - longest)), 8 + LINE * line
        for i, own in members:
            yield f'<rect class="s{i % COLOURS}" x="{x:.1f}" y="{y:g}" width="10" height="10"/>'
            yield f'<text class="legend" x="{x + 14:.1f}" y="{y + 9:g}">{escape(chart.series[i].name)}</text>'
            x += own


def bar_places(chart: Chart, band: float) -> Iterator[tuple[int, int, float, float, Point]]:
    """Every bar as (index of its series, index of its label, left edge, width, value)."""
    width = band * 0.8 / max(1, len(chart.series))
    for i, series in enumerate(chart.series):
        for place, point in enumerate(series.points):
            if point is not None:
                yield i, place, LEFT + band * (place + 0.1) + width * i, width, point


def bars(chart: Chart, axis: Axis, band: float) -> Iterator[str]:
    """The bars with their intervals."""
    bottom = axis.y(axis.ticks[0] if chart.scale == "log" else 0.0)
    for i, place, x, width, point in bar_places(chart, band):
        y = axis.y(point.value)
        yield f"<g>{tooltip(chart, chart.series[i].name, place, point)}"
        yield (
            f'<rect class="s{i % COLOURS}" x="{x + 0.5:.1f}" y="{min(y, bottom):.1f}" '
            f'width="{max(1.0, width - 1):.1f}" height="{abs(bottom - y):.1f}"/>'
        )
        yield from interval(axis, point, x + width / 2)
        yield "</g>"


def lines(chart: Chart, axis: Axis, band: float) -> Iterator[str]:
    """A line per series, with a dot and an interval per value."""
    for i, series in enumerate(chart.series):
        found = [
            (place, LEFT + band * (place + 0.5), point)
            for place, point in enumerate(series.points)
            if point is not None
        ]
        path = " ".join(f"{x:.1f},{axis.y(point.value):.1f}" for _, x, point in found)
        yield f'<polyline class="l{i % COLOURS}" points="{path}"/>'
        for place, x, point in found:
            yield f"<g>{tooltip(chart, series.name, place, point)}"
            yield from interval(axis, point, x)
            yield f'<circle class="s{i % COLOURS}" cx="{x:.1f}" cy="{axis.y(point.value):.1f}" r="4"/></g>'


def interval(axis: Axis, point: Point, x: float) -> Iterator[str]:
    """A whisker from the low to the high end of a value's interval."""
    if point.low is not None and point.high is not None:
        low, high = axis.y(point.low), axis.y(point.high)
        ends = f"M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"
        yield f'<path class="whisker" d="M{x:.1f} {low:.1f}V{high:.1f}{ends}"/>'


def tooltip(chart: Chart, name: str, place: int, point: Point) -> str:
    """The tooltip of a value: the value, its interval and its sources."""
    text = f"{chart.labels[place]}, {name}: {format(point.value, chart.number)}"
    if point.low is not None and point.high is not None:
        text += f" ({format(point.low, chart.number)} … {format(point.high, chart.number)})"
    lines = [text, *([point.detail] if point.detail else []), *point.sources]
    return f"<title>{escape(chr(10).join(lines))}</title>"


def labels(chart: Chart, band: float) -> tuple[list[str], float]:
    """The labels below the plot, slanted if they would touch each other, and the height that they need."""
    longest = max((len(label) for label in chart.labels), default=0) * CHARACTER
    y = TOP + PLOT_HEIGHT + 16
    places = [(LEFT + band * (i + 0.5), escape(label)) for i, label in enumerate(chart.labels)]
    if longest <= band * 0.98:
        return [
            f'<text class="tick" x="{x:.1f}" y="{y:g}" text-anchor="middle">{text}</text>' for x, text in places
        ], 18
    angle = SLANT if longest * math.cos(math.radians(SLANT)) <= places[0][0] else STEEP
    parts = [
        f'<text class="tick" text-anchor="end" transform="translate({x + 4:.1f} {y - 4:g}) rotate(-{angle})">'
        f"{text}</text>"
        for x, text in places
    ]
    return parts, longest * math.sin(math.radians(angle)) + LINE
