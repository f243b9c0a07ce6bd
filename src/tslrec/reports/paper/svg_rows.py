"""A chart with a row for each label, for labels that are whole sentences: dots with intervals on a horizontal axis.

It is drawn twice as wide as the other charts. Sizes are in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape

from tslrec.reports.paper.document import Chart, Point
from tslrec.reports.paper.svg import CHARACTER, COLOURS, LINE, legend, nice_ticks, tooltip, values_of

WIDTH, RIGHT, TOP = 980.0, 16.0, 34.0
ROW = 22.0
"""Height of a row."""

APART = 7.0
"""Vertical distance of the dots of one row."""

WIDEST = 0.6
"""Share of the picture that the labels take at most; a longer one is squeezed."""


def draw_rows(chart: Chart) -> str:
    """The chart as an `<svg>` element."""
    left = 12 + min(max((len(label) for label in chart.labels), default=0) * CHARACTER, WIDEST * WIDTH)
    values = [0.0, *values_of(chart)]
    ticks = nice_ticks(min(values), max(values))
    bottom = TOP + ROW * len(chart.labels)

    def x(value: float) -> float:
        return left + (WIDTH - RIGHT - left) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    parts = [
        f'<svg viewBox="0 0 {WIDTH:g} {bottom + 3 * LINE:g}" role="img" '
        f'aria-label="{escape(f"{chart.title}: {chart.axis}")}">',
        *legend(chart, WIDTH),
    ]
    for tick in ticks:
        colour = "zero" if tick == 0 else "grid"
        parts.append(f'<line class="{colour}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP:g}" y2="{bottom:g}"/>')
        parts.append(
            f'<text class="tick" x="{x(tick):.1f}" y="{bottom + LINE:g}" text-anchor="middle">{tick:,.10g}</text>'
        )
    parts.append(
        f'<text class="axis" x="{(left + WIDTH - RIGHT) / 2:.1f}" y="{bottom + 2.3 * LINE:g}" '
        f'text-anchor="middle">{escape(chart.axis)}</text>'
    )
    for place, label in enumerate(chart.labels):
        middle = TOP + ROW * (place + 0.5)
        squeezed = f' textLength="{left - 12:.0f}"' if len(label) * CHARACTER > left - 12 else ""
        parts.append(f'<text class="tick" x="{left - 8:.1f}" y="{middle + 4:.1f}" text-anchor="end"{squeezed}>')
        parts.append(f"{escape(label)}</text>")
        for number, series in enumerate(chart.series):
            point = series.points[place]
            if point is not None:
                y = middle + APART * (number - (len(chart.series) - 1) / 2)
                parts.append(f"<g>{tooltip(chart, series.name, place, point)}")
                parts += whisker(point, y, x)
                parts.append(f'<circle class="s{number % COLOURS}" cx="{x(point.value):.1f}" cy="{y:.1f}" r="4"/></g>')
    return "\n".join([*parts, "</svg>"])


def whisker(point: Point, y: float, x: Callable[[float], float]) -> Iterator[str]:
    """A line from the low to the high end of a value's interval, if it has one.

    Args:
        point: the value.
        y: the line's height.
        x: the horizontal place of a value.
    """
    if point.low is not None and point.high is not None:
        low, high = x(point.low), x(point.high)
        ends = f"M{low:.1f} {y - 3:.1f}v6M{high:.1f} {y - 3:.1f}v6"
        yield f'<path class="whisker" d="M{low:.1f} {y:.1f}H{high:.1f}{ends}"/>'
