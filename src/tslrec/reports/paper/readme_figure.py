"""The README's bar chart: test NDCG@10 of Base, CI and TSLRec for each backbone of the paper on Beauty.

There is a panel per ranking protocol. The picture is a separate file, so it carries its own style and a white
background: it looks the same on light and dark pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.pipeline.choices import choice_place, choice_title
from tslrec.reports.paper.cells import CellResult
from tslrec.reports.paper.document import Chart, Point, Series, digits
from tslrec.reports.paper.seed_rows import MAIN_PRESET, Row, mean_point, rows_of
from tslrec.reports.paper.svg import (
    LEFT,
    PLOT_HEIGHT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    axis_of,
    bar_places,
    bars,
    grid,
    labels,
    legend,
)
from tslrec.system.errors import UserError

DATA, METRIC = "beauty", "NDCG@10"
METHODS = ("base", "ci", "tslrec")
BACKBONES = ("gru4rec", "caser", "sasrec", "fmlp")
"""The paper's; with more of them the numbers above the bars would overlap."""
MARGIN, GAP, HEAD, FOOT = 12.0, 16.0, 56.0, 30.0
"""Pixels at both sides, between the panels, above them for title and legend, and below them for the note."""

NOTE = (
    "Mean ± standard deviation over seeds; the number in a bar is how many seeds it has. "
    "A missing bar: no finished run yet."
)
STYLE = """
text { fill: #1c1f23; font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
.title { font-size: 16px; font-weight: 600; }
.panel { font-size: 13px; font-weight: 600; }
.tick, .axis, .note { fill: #4d555e; }
.value { font-size: 9px; paint-order: stroke; stroke: #ffffff; stroke-width: 2px; }
.seeds { font-size: 10.5px; fill: #ffffff; }
.grid { stroke: #d9dde2; }
.whisker { stroke: #1c1f23; fill: none; }
.s0 { fill: #66727e; } .s1 { fill: #b86a00; } .s2 { fill: #0a6fb8; }
"""


def readme_figure(cells: Sequence[CellResult]) -> str:
    """The picture as the text of an SVG file.

    Raises:
        UserError: if no cell belongs in it.
    """
    charts = make_charts(cells)
    axis = axis_of(Chart("", "", (), [series for chart in charts for series in chart.series]))
    bottom = max(label_height(chart) for chart in charts)
    panel_height = TOP + PLOT_HEIGHT + bottom
    width, height = MARGIN * 2 + WIDTH * len(charts) + GAP * (len(charts) - 1), HEAD + panel_height + FOOT
    title = f"{choice_title('data', DATA)}: test {METRIC} by backbone, preset {MAIN_PRESET}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{escape(title)}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width:g}" height="{height:g}" rx="8" fill="#ffffff"/>',
        f'<text class="title" x="{MARGIN + LEFT:g}" y="26">{escape(title)}</text>',
        f'<g transform="translate({MARGIN:g} 34)">',
        *legend(charts[0], WIDTH),
        "</g>",
    ]
    for i, chart in enumerate(charts):
        left = MARGIN + (WIDTH + GAP) * i
        parts += [f'<g transform="translate({left:g} {HEAD:g})">', *panel(chart, axis), "</g>"]
    parts += [f'<text class="note" x="{MARGIN + LEFT:g}" y="{height - 12:g}">{escape(NOTE)}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def make_charts(cells: Sequence[CellResult]) -> list[Chart]:
    """A chart per ranking protocol; neither variants nor other source models are in it."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows_of(cells):
        drawn = row.model_name in BACKBONES and row.method_name in METHODS and row.is_plain
        if drawn and (row.data_name, row.preset) == (DATA, MAIN_PRESET):
            key = row.model_name, row.method_name
            # Cells whose other settings differ are rows of their own: the one with the most seeds is drawn.
            if key not in found or len(row.seeds) > len(found[key].seeds):
                found[key] = row
    if not found:
        raise UserError(f"figure: no finished cell of {', '.join(METHODS)} on {DATA}; run `tslrec paper table2` first")
    models = sorted({model for model, _ in found}, key=lambda name: choice_place("model", name))
    titles = [choice_title("model", name) for name in models]
    charts = []
    for protocol, title in PROTOCOLS.items():
        series = [
            Series(
                choice_title("method", method),
                [point_of(found.get((model, method)), f"test/{protocol}/{METRIC}") for model in models],
            )
            for method in METHODS
        ]
        charts.append(Chart(f"History {title}", f"test {METRIC}", titles, series))
    return charts


def point_of(row: Row | None, metric: str) -> Point | None:
    """The mean over seeds; None if there is no row."""
    return None if row is None else mean_point(row.values(metric), row)


def band_of(chart: Chart) -> float:
    """The width that one label has, in pixels."""
    return (WIDTH - LEFT - RIGHT) / len(chart.labels)


def label_height(chart: Chart) -> float:
    return labels(chart, band_of(chart))[1]


def panel(chart: Chart, axis: Axis) -> Iterator[str]:
    """One chart: bars with their values above and their number of seeds inside."""
    band = band_of(chart)
    yield f'<text class="panel" x="{LEFT:g}" y="{TOP - 14:g}">{escape(chart.title)}</text>'
    yield from grid(axis, chart)
    yield from bars(chart, axis, band)
    for _, _, x, width, point in bar_places(chart, band):
        middle, top = x + width / 2, axis.y(point.value if point.high is None else point.high)
        value = digits(point.value)
        yield f'<text class="value" x="{middle:.1f}" y="{top - 4:.1f}" text-anchor="middle">{value}</text>'
        foot = axis.y(axis.ticks[0]) - 6
        yield f'<text class="seeds" x="{middle:.1f}" y="{foot:.1f}" text-anchor="middle">{len(point.sources)}</text>'
    yield from labels(chart, band)[0]
