"""What a run that continues another one prints beside the closing table, from the manifests alone: what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.pipeline.result_names import method_title
from tslrec.pipeline.results import MethodResult
from tslrec.reports.whole_tables import print_table

METRIC = "NDCG@10"
NOT_MEASURED = "–"


def print_update(results: Sequence[MethodResult], console: Console) -> None:
    """Prints how the data grew, what training on has changed in the test, and what it cost; nothing of other runs.

    Args:
        results: of the methods of the run.
        console: on which it is printed.
    """
    continued = [result for result in results if result.earlier is not None]
    if not continued:
        return
    last = continued[-1]
    for line in growth(Path(last.config["continue_from"]).name, last.metrics):
        console.print(line)
    print_table(update_table(continued), console)
    console.print(
        "Earlier: the earlier weights on the test of today's data, before they were trained on. Warm and cold: "
        "users by whether their target has a training interaction.",
    )
    for result in continued:
        console.print(cost(result))


def growth(run: str, metrics: Mapping[str, Any]) -> list[str]:
    """Lines on the items and users before and now.

    Args:
        run: the name of the earlier run.
        metrics: of a stage that trained on.
    """
    lines = [f"Continues {run}"]
    for kind in ("items", "users"):
        before, kept, new = (metrics[f"{kind}_{part}"] for part in ("before", "kept", "new"))
        cold = f", {metrics['items_cold']:,} without training interactions" if kind == "items" else ""
        lines.append(
            f"{kind.capitalize()}: {before:,} before, {kept + new:,} now; {new:,} new, {before - kept:,} gone{cold}"
        )
    return lines


def update_table(results: Sequence[MethodResult]) -> Table:
    """The test of today's data by the earlier and the continued weights, and of the latter by warm and cold targets."""
    metrics = results[-1].metrics
    table = Table(title=f"Test {METRIC} on today's data", title_justify="left")
    table.add_column("protocol")
    table.add_column("method")
    users = {name: f"{name} ({metrics[f'{name}/users']:,})" for name in ("warm", "cold")}
    for heading in ("earlier", "continued", *users.values()):
        table.add_column(heading, justify="right")
    for protocol, title in PROTOCOLS.items():
        for position, result in enumerate(results):
            values = [text(result, f"{part}/{protocol}/{METRIC}") for part in ("before", "test", *users)]
            table.add_row(title if position == 0 else "", method_title(result.method, result.config), *values)
        table.add_section()
    return table


def text(result: MethodResult, name: str) -> str:
    """A metric of the last stage with four digits; a dash where there is none, as of a slice without users."""
    return f"{result.metrics[name]:.4f}" if name in result.metrics else NOT_MEASURED


def cost(result: MethodResult) -> str:
    """A line on the wall time of the stages that were continued, each with that of the earlier run behind it."""
    assert result.earlier is not None
    parts, now, before = [], 0.0, 0.0
    for name, artifact in result.stages.items():
        earlier = result.earlier[name]
        seconds = float(earlier.manifest["wall_seconds"])
        before += seconds
        if artifact.key == earlier.key:
            parts.append(f"{name} kept ({seconds:.1f})")
        else:
            own = float(artifact.manifest["wall_seconds"])
            now += own
            parts.append(f"{name} {own:.1f} ({seconds:.1f})")
    title = method_title(result.method, result.config)
    return f"{title}: {now:.1f} s; the earlier run took {before:.1f} s on its data: {', '.join(parts)}"
