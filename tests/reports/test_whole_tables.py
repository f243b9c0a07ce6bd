"""Every figure of every view is printed whole, at any width from 40 columns up and without a terminal."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from rich.table import Table

from tslrec.data.statistics import fraction
from tslrec.pipeline.artifacts import Artifact
from tslrec.pipeline.inventory import Entry, State
from tslrec.pipeline.results import MethodResult
from tslrec.reports import audit_view, closing_table, inventory_view, summary_view, update
from tslrec.reports.costs import view as costs_view
from tslrec.reports.costs.work import Work
from tslrec.reports.paper.document import Section, TableCell, TableView
from tslrec.reports.paper.text import print_section
from tslrec.reports.summary import Row
from tslrec.reports.whole_tables import print_table
from tslrec.serving.tables import table_of
from tslrec.system.consoles import plain_console

WIDTHS = (40, 60, 80, 120)
LONG = "a_very_long_name_of_a_data_set_that_somebody_chose_without_a_thought_of_terminals"
METRICS = {
    f"{kind}@{k}": round(0.1234 + k / 7000 + i / 90, 4) for i, kind in enumerate(("HR", "NDCG")) for k in (5, 10)
}
TEST = {f"test/{p}/{name}": value for p in ("masked", "unmasked") for name, value in METRICS.items()}
PARTS = {
    f"{part}/{p}/NDCG@10": 0.4321 for part in ("before", "warm", "cold", "validation") for p in ("masked", "unmasked")
}


def artifact(name: str, wall: float) -> Artifact:
    manifest = {"key": name, "metrics": {}, "wall_seconds": wall, "peak_memory_gib": 1234.56}
    return Artifact(Path("artifacts") / LONG / name, manifest, reused=True)


def result() -> MethodResult:
    config: dict[str, Any] = {
        "training": {"test_users": None},
        "continue_from": f"runs/{LONG}",
        "metrics": list(METRICS),
    }
    numbers = {"warm/users": 12_345_678, "cold/users": 9_876_543, "best_epoch": 1233, "epochs": 99999}
    counts = {f"{k}_{p}": 98_765_432 for k in ("items", "users") for p in ("before", "kept", "new", "cold")}
    last = artifact("fusion", 123456.7)
    last = replace(last, manifest={**last.manifest, "metrics": {**TEST, **PARTS, **numbers, **counts}})
    stages = {"backbone": artifact("backbone", 7654321.0), "fusion": last}
    return MethodResult("tslrec", LONG, "sasrec", "fmlp", "paper", 123456, LONG, stages, config, earlier=stages)


def closing(console: Console) -> list[str]:
    closing_table.print_closing_table([result()], Path("runs") / LONG, console)
    return [*(f"{value:.4f}" for value in METRICS.values()), "1234 of 99999", "123456.7", "7654321.0", "1234.56"]


def updated(console: Console) -> list[str]:
    update.print_update([result()], console)
    return ["0.4321", "(12,345,678)", "98,765,432"]


def summary(console: Console) -> list[str]:
    values = {**TEST, **PARTS}
    row = Row(LONG, "sasrec", "paper", "tslrec", LONG, "", (1, 2), (values, {k: v / 2 for k, v in values.items()}))
    summary_view.print_summary([row], console)
    return [summary_view.value_of(row, name) for name in TEST]


def sizes(console: Console) -> list[str]:
    entries = [
        Entry("preferences", f"{LONG}-0123456789ab", s, (), 123_456_789_012, "2026-01-02 03:04, 12 s") for s in State
    ]
    inventory_view.print_inventory(entries, console)
    return ["123.5 GB", "617.3 GB", "1 stopped"]


def audit(console: Console) -> list[str]:
    print_table(audit_view.table_of([(fraction(987_654_321, 1_234_567_890), LONG), (123_456_789, LONG)]), console)
    return ["987,654,321", "80.00%", "123,456,789"]


def plan(console: Console) -> list[str]:
    tokens = SimpleNamespace(examples=123_456_789, steps=23_456_789, computed=345_678_901_234, padding_share=0.999)
    work = Work(tokens, flops=9.87e20, seconds=3.6e8, bound_by="arithmetic")  # type: ignore[arg-type]
    ways = {"shared": work, "naive": work}
    forecast = SimpleNamespace(sft=ways, augmentation=ways, e4srec=ways, e4srec_inference=ways)
    print_table(costs_view.works(forecast), console)  # type: ignore[arg-type]
    table = Table(title=f"Memory of {LONG}")
    for name in ("GPUs", "weights", "states", "gathered", "activations", "a GPU", "host"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_row("8", *(f"{value:.2f}" for value in (13123.45, 23123.45, 33123.45, 43123.45, 53123.45, 63123.45)))
    print_table(table, console)
    return [*costs_view.cells(work), "13123.45", "23123.45", "33123.45", "43123.45", "53123.45", "63123.45"]


def paper(console: Console) -> list[str]:
    figures = [f"{i}.{i}234±.00{i}7" for i in range(1, 9)]
    columns = ["data", "method", *(f"{LONG[:12]} {i}" for i in range(1, 9))]
    table = TableView(LONG, columns, [[LONG, LONG, *map(TableCell, figures)]])
    print_section(Section("x", LONG, LONG, tables=[table]), console)
    return figures


def lists(console: Console) -> list[str]:
    rows = {
        "user": [LONG, LONG],
        "rank": [1, 12345],
        "item": [LONG, LONG],
        "title": [LONG, LONG],
        "score": [1234567.8901, -0.5],
    }
    print_table(table_of(pl.DataFrame(rows), "user", "item", "score"), console)
    return ["12345", "1234567.8901", "-0.5000"]


VIEWS = (closing, updated, summary, sizes, audit, plan, paper, lists)


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_figure_is_whole(view: Callable[[Console], list[str]], width: int, terminal: bool) -> None:
    # A terminal without colour: what is read is then what stands there.
    console = plain_console(width=width, file=io.StringIO(), force_terminal=terminal, color_system=None)
    figures = view(console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    printed = re.sub(r"\x1b\[[0-9;]*m", "", printed)
    assert figures
    for figure in figures:
        found = r"\s+".join(map(re.escape, figure.split()))
        assert re.search(rf"(?<![\d.,]){found}(?![\d…])", printed), (figure, printed)
    assert "…" not in printed


@pytest.mark.parametrize("width", range(40, 121, 7))
def test_a_table_that_fits_is_as_wide_as_the_console_at_most(width: int) -> None:
    console = plain_console(width=width, file=io.StringIO())
    table = Table(title="Numbers")
    table.add_column("name", overflow="fold")
    for i in range(12):
        table.add_column(f"metric {i}", justify="right")
    table.add_row(LONG, *(f"{i}.{'1234567'[: i % 7 + 1]}" for i in range(12)))
    print_table(table, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert [word for word in words if re.fullmatch(r"\d+\.\d+", word)] == [
        f"{i}.{'1234567'[: i % 7 + 1]}" for i in range(12)
    ]


def test_a_console_narrower_than_its_figures_gets_a_line_each() -> None:
    console = plain_console(width=12, file=io.StringIO())
    print_table(audit_view.table_of([(fraction(987_654, 1_234_567), LONG)]), console)
    lines = [line.strip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert {"987,654", "80.00%"} <= set(lines)
