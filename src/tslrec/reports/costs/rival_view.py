"""Prints the plans of LlamaRec, P5 and POD on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from tslrec.config import Config
from tslrec.reports.costs.phases import Phase, RivalPlan
from tslrec.reports.costs.view import duration
from tslrec.reports.whole_tables import print_table
from tslrec.system.device_profiles import profile_of


def print_rivals(plans: Sequence[RivalPlan], config: Config, console: Console) -> None:
    """Prints the work of each phase, the memory of each training and what the counts assume."""
    table = Table(title="Language-model work", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("what", no_wrap=True)
    for name in ("examples", "tokens", "TFLOP", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    for plan in plans:
        table.add_row(f"{plan.title}: an epoch", *cells(plan.epoch))
        table.add_row("  inference", *cells(plan.inference))
    device = profile_of(config.trainer.device)
    for plan in plans:
        console.print(
            f"{plan.title} on {plan.model}: {plan.parameters:,} parameters, {plan.trainable:,} trainable; training "
            f"takes {plan.memory_gib:.2f} GiB on one device; {plan.epochs:g} epoch{'' if plan.epochs == 1 else 's'} "
            f"at most: {plan.epochs * plan.epoch.flops / 1e12:,.0f} TFLOP",
        )
        for assumption in plan.assumptions:
            console.print(f"  taken for granted: {assumption}")
        if device.memory_gib is not None and plan.memory_gib > device.memory_gib:
            console.print(
                f"  {plan.memory_gib:.1f} GiB do not fit one {device.title} ({device.memory_gib:g} GiB): lower the "
                "method's batch_size, or a smaller llm",
            )
    console.print(f"Device: {device.title}")
    print_table(table, console)


def cells(phase: Phase) -> list[str]:
    """One row's numbers as texts."""
    return [
        f"{phase.examples:,}",
        f"{phase.tokens:,}",
        f"{phase.flops / 1e12:,.1f}",
        duration(phase.seconds),
        phase.bound_by,
    ]
