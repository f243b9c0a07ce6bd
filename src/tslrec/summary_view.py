"""A summary of runs as a person reads it: a table for each ranking protocol, which are never mixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from string import ascii_lowercase
from typing import Literal

from rich.console import Console
from rich.table import Table

from tslrec.choices import choice_title
from tslrec.config import MONITORED
from tslrec.report import METRICS, PROTOCOLS
from tslrec.summary import Row

Part = Literal["test", "validation"]


def print_summary(rows: Sequence[Row], console: Console, *, part: Part = "test") -> None:
    """Prints a table for each protocol, and below them what tells rows of the same name apart.

    Args:
        rows: of which those of the same data set, backbone and preset follow each other.
        console: to print on.
        part: whose metrics; those of the validation tell nothing of the test.
    """
    marks = marks_of(rows)
    for protocol, title in PROTOCOLS.items():
        console.print(f"{part.capitalize()}, history {title}", style="bold", highlight=False)
        for (data, model, preset), block in groupby(rows, key=lambda row: row.names[:3]):
            console.print(f"\n{data} · {model} · {preset}", highlight=False)
            console.print(table_of(list(block), protocol, part, marks))
        console.print()
    for differs, mark in marks.items():
        console.print(f"{mark}  {differs}", highlight=False, soft_wrap=True)
    if part == "test":
        console.print("Validation is NDCG@10.", end=" ", highlight=False)
    console.print("± is the standard deviation over seeds.", highlight=False)


def marks_of(rows: Sequence[Row]) -> dict[str, str]:
    """A letter, or several, for each text that says in what rows differ."""
    texts = dict.fromkeys(row.differs for row in rows if row.differs)
    return {text: ascii_lowercase[i % 26] * (i // 26 + 1) for i, text in enumerate(texts)}


def table_of(rows: Sequence[Row], protocol: str, part: Part, marks: Mapping[str, str]) -> Table:
    """A data set, backbone and preset; in all of them the columns have the same width."""
    columns = {name: f"{part}/{protocol}/{name}" for name in METRICS}
    if part == "test":
        columns = {"validation": MONITORED.format(protocol=protocol), **columns}
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", min_width=6)
    table.add_column("", min_width=2)
    table.add_column("seeds", justify="right")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True, min_width=11)
    for row in rows:
        values = [value_of(row, metric) for metric in columns.values()]
        name = choice_title("method", row.method)
        table.add_row(name, marks.get(row.differs, ""), str(len(row.seeds)), *values)
    return table


def value_of(row: Row, metric: str) -> str:
    """The mean, and the deviation where there is one, without the 0 before the point."""
    deviation = row.deviation(metric)
    texts = [f"{value:.4f}".removeprefix("0") for value in (row.mean(metric), deviation) if value is not None]
    return "±".join(texts)
