"""Prints a summary of runs: a table per ranking protocol, since metrics of different protocols are not comparable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from string import ascii_lowercase
from typing import Literal

from rich.console import Console
from rich.table import Table

from tslrec.evaluation.protocols import LIST_NOTE, LIST_SIGN, METRICS, PROTOCOLS
from tslrec.reports.closing_table import NOT_MEASURED
from tslrec.reports.summary import Row
from tslrec.reports.whole_tables import print_table
from tslrec.settings.metrics import MONITORED

Part = Literal["test", "validation"]


def print_summary(rows: Sequence[Row], console: Console, *, part: Part = "test") -> None:
    """Prints a table per protocol, and below them the settings in which rows with the same names differ.

    Args:
        rows: the rows; those with the same data set, backbone and preset must be adjacent.
        console: where to print.
        part: print the metrics of the test (with the validation NDCG@10) or those of the validation alone.
    """
    marks = marks_of(rows)
    for protocol, title in PROTOCOLS.items():
        console.print(f"{part.capitalize()}, history {title}", style="bold")
        for (data, model, preset), block in groupby(rows, key=lambda row: row.names[:3]):
            console.print(f"\n{data} · {model} · {preset}")
            print_table(table_of(list(block), protocol, part, marks), console)
        console.print()
    for differs, mark in marks.items():
        console.print(f"{mark}  {differs}", soft_wrap=True)
    if any(missing_metrics(row, part) for row in rows):
        console.print(f"{NOT_MEASURED}: a run of this row did not compute the metric (see its `metrics`).")
    if any(row.title.endswith(LIST_SIGN) for row in rows):
        console.print(LIST_NOTE)
    if part == "test":
        console.print("Validation is NDCG@10.", end=" ")
    console.print("± is the standard deviation over seeds.")


def marks_of(rows: Sequence[Row]) -> dict[str, str]:
    """A letter, or several, for each text of differing settings."""
    texts = dict.fromkeys(row.differs for row in rows if row.differs)
    return {text: ascii_lowercase[i % 26] * (i // 26 + 1) for i, text in enumerate(texts)}


def table_of(rows: Sequence[Row], protocol: str, part: Part, marks: Mapping[str, str]) -> Table:
    """The table of one data set, backbone and preset; columns have the same width in all tables."""
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
        table.add_row(row.title, marks.get(row.differs, ""), str(len(row.seeds)), *values)
    return table


def missing_metrics(row: Row, part: Part) -> list[str]:
    """Which of the metrics that tables show a run of a row lacks."""
    names = [f"{part}/{protocol}/{name}" for protocol in PROTOCOLS for name in METRICS]
    return [name for name in names if any(name not in metrics for metrics in row.metrics)]


def value_of(row: Row, metric: str) -> str:
    """The mean, and the standard deviation if there is one, as in `.0505±.0007`; a dash if a run lacks the metric."""
    if any(metric not in metrics for metrics in row.metrics):
        return NOT_MEASURED
    deviation = row.deviation(metric)
    texts = [f"{value:.4f}".removeprefix("0") for value in (row.mean(metric), deviation) if value is not None]
    return "±".join(texts)
