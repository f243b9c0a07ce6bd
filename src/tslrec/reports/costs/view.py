"""Prints a plan on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tslrec.config import Config
from tslrec.reports.costs.memory import Memory, sft_memory
from tslrec.reports.costs.work import Plan, Work

DEVICES = (1, 2, 4, 8)
"""Numbers of GPUs for which memory is printed."""


def print_plan(plan: Plan, config: Config, console: Console) -> None:
    """Prints tokens, operations, time and, unless training is on the CPU, memory."""
    shape = plan.shape
    counted = "counted" if plan.prompts_are_exact else "estimated, the tokenizer is not here"
    console.print(
        f"{config.llm.name}: {shape.num_parameters:,} parameters, {plan.trainable:,} of them and of the heads "
        f"trainable ({plan.trainable / (shape.num_parameters + plan.trainable):.3%})",
        highlight=False,
    )
    ours, rivals = (f"{before} + {after}" for before, after in (plan.prompt, plan.e4srec_prompt))
    console.print(f"Prompt: {ours} tokens, E4SRec's {rivals} ({counted})", highlight=False)
    console.print(
        f"Shown: the last {config.training.max_len} items; {plan.truncated_users:,} users are cut, "
        f"{plan.truncated_items:,} interactions not shown",
        highlight=False,
    )
    console.print(lengths(plan))
    console.print(works(plan))
    if config.trainer.accelerator != "cpu":
        console.print(memories(plan, config))
    steps = plan.sft["shared"].tokens.steps
    epochs = config.sft.max_epochs * (config.sft.steps_per_epoch or steps) / steps
    flops = epochs * plan.sft["shared"].flops + plan.augmentation["shared"].flops
    console.print(
        f"All of TSLRec's language-model work, {epochs:g} epoch{'s' if epochs > 1 else ''} of SFT and the "
        "augmentation: "
        f"{flops / 1e12:,.0f} TFLOP, {duration(flops / plan.device_tflops / 1e12)} on one device at "
        f"{plan.device_tflops:g} TFLOP/s. An epoch of E4SRec computes "
        f"{plan.e4srec['shared'].flops / plan.sft['shared'].flops:.1f} times what an epoch of the SFT does "
        f"({plan.e4srec['naive'].flops / plan.sft['naive'].flops:.1f} times, both in the naive way).",
        highlight=False,
    )


def lengths(plan: Plan) -> Table:
    """The number of users by how many of their items are shown."""
    table = Table(title="Users by items shown", title_justify="left", min_width=24)
    for name in ("items", "users"):
        table.add_column(name, justify="right")
    for low, high, users in plan.histogram:
        table.add_row(str(low) if low == high else f"{low}-{high}", f"{users:,}")
    return table


def works(plan: Plan) -> Table:
    """Tokens, operations and time of each phase, with the prompt shared and with a whole prompt per example."""
    table = Table(title="Language-model work", title_justify="left")
    table.add_column("what")
    table.add_column("prompt")
    for name in ("examples", "steps", "tokens", "padding", "TFLOP", "time"):
        table.add_column(name, justify="right")
    parts = {
        "SFT, an epoch": plan.sft,
        "augmentation": plan.augmentation,
        "E4SRec, an epoch": plan.e4srec,
        "E4SRec, inference": plan.e4srec_inference,
    }
    for name, ways in parts.items():
        for way, work in ways.items():
            table.add_row(name if way == "shared" else "", way, *cells(work))
    return table


def cells(work: Work) -> list[str]:
    """One row's numbers as texts."""
    tokens = work.tokens
    return [
        f"{tokens.examples:,}",
        f"{tokens.steps:,}",
        f"{tokens.computed:,}",
        f"{tokens.padding_share:.1%}",
        f"{work.flops / 1e12:,.1f}",
        duration(work.seconds),
    ]


def memories(plan: Plan, config: Config) -> Table:
    """Memory per GPU and of the host on one node, by number of GPUs."""
    table = Table(title="Memory of the SFT, GiB", title_justify="left")
    for name in ("GPUs", "weights", "states", "gathered", "activations", "a GPU", "host"):
        table.add_column(name, justify="right", no_wrap=True)
    for devices in DEVICES:
        table.add_row(*memory_cells(memory_of(plan, config, devices)))
    return table


def memory_of(plan: Plan, config: Config, devices: int) -> Memory:
    """The memory under the strategy that the configuration chooses for the language model."""
    strategy = config.trainer.llm_strategy
    settings = strategy if isinstance(strategy, dict) and "stage" in strategy else {}
    per_step = plan.sft["shared"].tokens.computed / plan.sft["shared"].tokens.steps
    return sft_memory(
        plan.shape,
        plan.trainable,
        config.llm.dtype,
        per_step,
        devices,
        zero_stage=int(settings.get("stage", 0)),
        offload_optimizer=bool(settings.get("offload_optimizer", False)),
        offload_parameters=bool(settings.get("offload_parameters", False)),
        weight_bits=config.llm.weight_bits,
        gradient_checkpointing=config.llm.gradient_checkpointing,
    )


def memory_cells(memory: Memory) -> list[str]:
    """One row's numbers as texts."""
    numbers = (memory.weights, memory.states, memory.working, memory.activations, memory.device, memory.host)
    return [str(memory.devices), *(f"{number:.2f}" for number in numbers)]


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
