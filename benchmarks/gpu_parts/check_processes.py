"""Runs that should give the same: twice, killed and resumed, under DDP of one process. How far are they apart?"""

from __future__ import annotations

from dataclasses import fields

from gpu_parts.bench import Bench
from gpu_parts.check_runs import (
    SMALL,
    Chain,
    Difference,
    Kill,
    difference,
    result_of,
    run_together,
    scratch,
    trainer_of,
)
from tslrec.settings.trainer import TrainerConfig

DETERMINISTIC = "deterministic"
"""The key of `trainer` that makes PyTorch choose deterministic operations only."""

KILLS = {
    "resumed_backbone": Kill("backbone/*.checkpoints/step-*", 3),
    "resumed_sft": Kill("sft/*.checkpoints/step-*", 5),
}
"""Where a run is killed, by the name of the comparison: within an epoch of a recommender and of the language model."""

WITHOUT_DROPOUT = ("model.hidden_dropout=0", "model.attention_dropout=0")
"""DDP draws from torch's random generator when it starts, so that its dropout masks are others."""


def check_processes(bench: Bench) -> None:
    """Runs all side by side, and compares the results of those that should be the same.

    With `trainer.deterministic` all should have the same bits. Without it the figures say how far apart they are.

    Raises:
        RuntimeError: if a run failed; what the others gave is reported before.
    """
    folder = scratch(bench, "processes")
    chains, pairs = planned(bench)
    problems = run_together(bench, chains, folder)
    for name, (one, other) in pairs.items():
        if one in problems or other in problems:
            bench.say(f"{name}: {problems.get(one) or problems[other]}")
            continue
        tell(bench, name, difference(folder / one, folder / other))
        if name.endswith("ddp"):
            metrics = [result_of(folder / run)["metrics"] for run in (one, other)]
            tested = [metric for metric in metrics[0] if metric.startswith("test/")]
            apart = max(abs(metrics[0][metric] - metrics[1][metric]) for metric in tested)
            bench.figure(f"{name}_metrics_apart", apart, "1", planned=0.0)
    if problems:
        raise RuntimeError(f"{len(problems)} of {len(chains)} runs failed: {'; '.join(problems.values())}")


def planned(bench: Bench) -> tuple[list[Chain], dict[str, tuple[str, str]]]:
    """The runs, and the names of each two that are compared, by the name of the comparison."""
    ways: dict[str, tuple[str, ...]] = {"plain": ()}
    if DETERMINISTIC in {field.name for field in fields(TrainerConfig)}:
        ways[DETERMINISTIC] = (f"trainer.{DETERMINISTIC}=true",)
    else:
        bench.say(f"this version has no trainer.{DETERMINISTIC}")
    if bench.rehearse:
        ways = {"plain": ()}
    others: dict[str, Kill | None] = bench.sized({"twice": None, **KILLS}, {"resumed_sft": KILLS["resumed_sft"]})
    chains, pairs = [], {}
    for way, settings in ways.items():
        # Checkpoints after every step, so that a run can be killed at any.
        common = ("method=tslrec", *SMALL, trainer_of(bench), *settings, "trainer.checkpoint_seconds=0")
        chains.append(Chain(f"{way}_whole", common))
        for name, kill in others.items():
            chains.append(Chain(f"{way}_{name}", common, kill))
            pairs[f"{way}_{name}"] = f"{way}_whole", f"{way}_{name}"
    settings = list(ways.values())[-1]
    common = (bench.sized("method=tslrec", "method=base"), *SMALL, *WITHOUT_DROPOUT)
    ddp = ("trainer=ddp", "trainer.devices=1") if bench.on_card else ("trainer=cpu", "trainer.strategy=ddp")
    chains += [
        Chain("alone", (*common, trainer_of(bench), *settings)),
        Chain("ddp", (*common, *ddp, *settings)),
    ]
    return chains, {**pairs, "ddp": ("alone", "ddp")}


def tell(bench: Bench, name: str, found: Difference) -> None:
    """Reports how far two runs are apart; 0 means the same bits in every array."""
    bench.figure(f"{name}_largest_difference", found.largest, "1", planned=0.0)
    bench.figure(f"{name}_arrays_that_differ", len(found.unequal), "count", of=found.arrays)
    bench.say(f"{name}: {found.sentence()}")
