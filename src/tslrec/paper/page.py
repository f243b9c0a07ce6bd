"""The report page: one HTML file that needs nothing else, with every table, figure and number's origin.

It is well-formed XML as well, so that a test can read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from tslrec.paper.cells import CellResult
from tslrec.paper.svg import draw
from tslrec.paper.views import Chart, Section, Shown, TableView

NUMBER = ' class="n"'
BEYOND = "Beyond the paper"
STYLE = Path(__file__).with_name("page.css")


def make_page(sections: Sequence[Section], cells: Sequence[CellResult]) -> str:
    """The whole page.

    Args:
        sections: in their order.
        cells: all that they may be from.
    """
    known = {cell.name for cell in cells}
    links = [f'<a href="#{each.key}">{escape(short(each.title))}</a>' for each in sections]
    count = "one finished run" if len(cells) == 1 else f"{len(cells)} finished runs"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"/>',
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>',
        "<title>TSLRec: results</title>",
        # An icon of nothing, which otherwise would be asked for.
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
    """`Table 1` of a table of the paper, and the subject of what is beyond it."""
    first, _, rest = title.partition(": ")
    return rest.capitalize() if first == BEYOND else first


def section_parts(section: Section, known: set[str]) -> Iterator[str]:
    yield f'<section id="{section.key}"><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>'
    if section.wanting:
        yield f'<p class="wanting">Not there: {escape(section.wanting)}.</p>'
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
    scale = " (logarithmic)" if chart.scale == "log" else ""
    yield f"<figure><figcaption>{escape(chart.title + scale)}</figcaption>{draw(chart)}"
    yield from notes(chart.notes)
    yield "</figure>"


def table_parts(table: TableView, known: set[str]) -> Iterator[str]:
    """A table in a frame of its own, which scrolls where the screen is narrower than it."""
    measured = [any(isinstance(row[i], Shown) for row in table.rows) for i in range(len(table.columns))]
    yield f'<h3>{escape(table.title)}</h3><div class="scroll"><table><thead><tr>'
    for column, number in zip(table.columns, measured, strict=True):
        yield f"<th{NUMBER if number else ''}>{escape(column)}</th>"
    yield "</tr></thead><tbody>"
    for row in table.rows:
        fields = zip(row, measured, strict=True)
        yield "<tr>" + "".join(field(value, number, known) for value, number in fields) + "</tr>"
    yield "</tbody></table></div>"
    yield from notes(table.notes)


def field(value: Shown | str, number: bool, known: set[str]) -> str:
    """A field of a table; a number leads to the first of its runs."""
    if isinstance(value, str):
        return f"<td{NUMBER if number else ''}>{escape(value)}</td>"
    text = escape(value.text)
    if value.mark in ("best", "significant"):
        text = f"<b>{text}</b>"
    elif value.mark == "second":
        text = f"<u>{text}</u>"
    origin = next((name for name in value.cells if name in known), None)
    if origin is not None:
        text = f'<a href="#{anchor(origin)}">{text}</a>'
    lines = [*([value.detail] if value.detail else []), *value.cells]
    told = f' title="{"&#10;".join(map(escape, lines))}"' if lines else ""
    doubt = " doubt" if value.mark == "doubt" else ""
    return f'<td class="n{doubt}"{told}>{text}</td>'


def notes(texts: Sequence[str]) -> Iterator[str]:
    for text in texts:
        yield f'<p class="note">{escape(text)}</p>'


def anchor(name: str) -> str:
    return "cell-" + "".join(character if character.isalnum() or character in "-_" else "_" for character in name)


def cell_parts(cells: Sequence[CellResult]) -> Iterator[str]:
    """The runs: file, command, seed, what each cost and with what."""
    heads = ("cell and command", "seed", "wall s", "peak GiB", "threads", "torch", "commit", "made")
    yield '<section id="cells"><h2>Runs</h2>'
    yield "<p>Each is a file in results/cells. Times are of all stages, those that other runs made included.</p>"
    yield '<div class="scroll"><table><thead><tr>'
    yield "".join(f"<th{NUMBER if 0 < i < 5 else ''}>{head}</th>" for i, head in enumerate(heads))
    yield "</tr></thead><tbody>"
    for cell in cells:
        content, stages = cell.content, list(cell.content["stages"].values())
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
