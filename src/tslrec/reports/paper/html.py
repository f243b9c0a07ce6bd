"""The report page: one self-contained HTML file with every table and figure; each number names its runs.

The page is well-formed XML too, so that a test can parse it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tslrec.reports.paper.cells import CellResult
from tslrec.reports.paper.document import Chart, Section, TableCell, TableView
from tslrec.reports.paper.svg import draw
from tslrec.reports.paper.svg_rows import draw_rows

NUMBER = ' class="n"'
BEYOND = "Beyond the paper"
"""How the titles of sections begin that are not in the paper."""

STYLE = Path(__file__).with_name("page.css")


def make_page(sections: Sequence[Section], cells: Sequence[CellResult]) -> str:
    """The whole page.

    Args:
        sections: the sections, in order.
        cells: all finished cells; numbers link to them.
    """
    known = {cell.name for cell in cells}
    links = [f'<a href="#{each.key}">{escape(short(each.title))}</a>' for each in sections]
    count = "one finished run" if len(cells) == 1 else f"{len(cells)} finished runs"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        "<title>TSLRec: results</title>",
        # An empty icon, since browsers request one otherwise.
        '<link rel="icon" href="data:,"/>',
        f"<style>{STYLE.read_text(encoding='utf-8')}</style></head><body>",
        "<header><h1>TSLRec: the paper’s tables and figures, measured</h1>",
        f"<p>Drawn from {count}. Every number tells its runs when it is pointed at, and leads to the first of them; "
        "the last section has their commands.</p></header>",
        f'<nav>{" ".join(links)} <a href="#cells">Runs</a></nav><main>',
        *(part for section in sections for part in section_parts(section, known)),
        *cell_parts(cells),
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def short(title: str) -> str:
    """The navigation's word for a section: `Table 1`, or for a section beyond the paper its subject."""
    first, _, rest = title.partition(": ")
    return rest.capitalize() if first == BEYOND else first


def section_parts(section: Section, known: set[str]) -> Iterator[str]:
    """A section; `known` holds the names of the cells that numbers can link to."""
    yield f'<section id="{section.key}"><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>'
    if section.missing_note:
        yield f'<p class="missing">Not there: {escape(section.missing_note)}.</p>'
    if section.charts:
        yield '<div class="charts">'
        for chart in section.charts:
            yield from chart_parts(chart)
        yield "</div>"
    for table in section.tables:
        yield from table_parts(table, known)
    if section.more:
        yield "<details><summary>" + escape("; ".join(table.title for table in section.more)) + "</summary>"
        for table in section.more:
            yield from table_parts(table, known)
        yield "</details>"
    yield "</section>"


def chart_parts(chart: Chart) -> Iterator[str]:
    """A chart with its caption and notes."""
    scale = " (logarithmic)" if chart.scale == "log" else ""
    picture, wide = (draw_rows(chart), ' class="wide"') if chart.kind == "rows" else (draw(chart), "")
    yield f"<figure{wide}><figcaption>{escape(chart.title + scale)}</figcaption>{picture}"
    yield from notes(chart.notes)
    yield "</figure>"


def table_parts(table: TableView, known: set[str]) -> Iterator[str]:
    """A table in its own frame, which scrolls sideways on narrow screens."""
    measured = [any(isinstance(row[i], TableCell) for row in table.rows) for i in range(len(table.columns))]
    yield f'<h3>{escape(table.title)}</h3><div class="scroll"><table><thead><tr>'
    for column, number in zip(table.columns, measured, strict=True):
        yield f"<th{NUMBER if number else ''}>{escape(column)}</th>"
    yield "</tr></thead><tbody>"
    for row in table.rows:
        fields = zip(row, measured, strict=True)
        yield "<tr>" + "".join(field(value, number, known) for value, number in fields) + "</tr>"
    yield "</tbody></table></div>"
    yield from notes(table.notes)


def field(value: TableCell | str, number: bool, known: set[str]) -> str:
    """A field of a table; a number links to the first of its runs."""
    if isinstance(value, str):
        return f"<td{NUMBER if number else ''}>{escape(value)}</td>"
    text = escape(value.text)
    if value.mark in ("best", "significant"):
        text = f"<b>{text}</b>"
    elif value.mark == "second":
        text = f"<u>{text}</u>"
    origin = next((name for name in value.sources if name in known), None)
    if origin is not None:
        text = f'<a href="#{anchor(origin)}">{text}</a>'
    lines = [*([value.detail] if value.detail else []), *value.sources]
    title = f' title="{"&#10;".join(map(escape, lines))}"' if lines else ""
    mark = " inconsistent" if value.mark == "inconsistent" else ""
    return f'<td class="n{mark}"{title}>{text}</td>'


def notes(texts: Sequence[str]) -> Iterator[str]:
    """The notes below a table or chart."""
    for text in texts:
        yield f'<p class="note">{escape(text)}</p>'


def anchor(name: str) -> str:
    """The id of a cell in the list of runs."""
    return "cell-" + "".join(character if character.isalnum() or character in "-_" else "_" for character in name)


def stages_of(cell: CellResult) -> list[dict[str, Any]]:
    """The facts of all stages of a run, those of its members included, each once."""
    runs = (*cell.content.get("members", ()), cell.content)
    # Cells of before keys were recorded have no members, so no stage stands in two runs.
    found = {stage.get("key", name): stage for run in runs for name, stage in run["stages"].items()}
    return list(found.values())


def cell_parts(cells: Sequence[CellResult]) -> Iterator[str]:
    """The list of runs: file, command, seed, cost, machine."""
    heads = ("cell and command", "seed", "wall s", "peak GiB", "threads", "torch", "commit", "made")
    yield '<section id="cells"><h2>Runs</h2>'
    yield "<p>Each is a file in results/cells. Times are of all stages, those that other runs made included.</p>"
    yield '<div class="scroll"><table><thead><tr>'
    yield "".join(f"<th{NUMBER if 0 < i < 5 else ''}>{head}</th>" for i, head in enumerate(heads))
    yield "</tr></thead><tbody>"
    for cell in cells:
        content, stages = cell.content, stages_of(cell)
        values = (
            str(cell.seed),
            f"{sum(stage['wall_seconds'] for stage in stages):,.0f}",
            f"{max(stage['peak_memory_gib'] for stage in stages):.2f}",
            str(content.get("threads")),
        )
        last = max(stages, key=lambda stage: str(stage["created"]))
        yield f'<tr id="{anchor(cell.name)}"><td><b>{escape(cell.path.name)}</b><br/>'
        yield f"<code>{escape(str(content['command']))}</code></td>"
        yield "".join(f"<td{NUMBER}>{escape(value)}</td>" for value in values)
        for text in (last["packages"]["torch"], content.get("commit") or "", str(last["created"])[:10]):
            yield f"<td>{escape(text)}</td>"
        yield "</tr>"
    yield "</tbody></table></div></section>"
