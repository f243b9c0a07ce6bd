"""Prints a plan on the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from tslrec.config import Config
from tslrec.reports.costs.memories import WAYS, augmentation_memory_of, e4srec_memory_of, memory_of, misfits
from tslrec.reports.costs.memory import Memory
from tslrec.reports.costs.work import Plan, Work
from tslrec.reports.whole_tables import print_table
from tslrec.system.device_profiles import DeviceProfile

DEVICES = (1, 2, 4, 8)
"""Numbers of GPUs for which memory is printed."""


def print_plan(plan: Plan, config: Config, console: Console) -> None:
    """Prints tokens, operations, time and what sets it and, unless training is on the CPU, memory."""
    shape = plan.shape
    counted = "counted" if plan.prompts_are_exact else "estimated, the tokenizer is not here"
    console.print(
        f"{config.llm.name}: {shape.num_parameters:,} parameters, {plan.trainable:,} of them and of the heads "
        f"trainable ({plan.trainable / (shape.num_parameters + plan.trainable):.3%})",
    )
    ours, rivals = (f"{before} + {after}" for before, after in (plan.prompt, plan.e4srec_prompt))
    console.print(f"Prompt: {ours} tokens, E4SRec's {rivals} ({counted})")
    console.print(
        f"Shown: the last {config.training.max_len} items; {plan.truncated_users:,} users are cut, "
        f"{plan.truncated_items:,} interactions not shown",
    )
    if config.sft.reads_titles:
        console.print(
            f"Items: sft.item_input={config.sft.item_input}, {plan.items.mean:.1f} tokens each ({plan.items.known})",
        )
    console.print(device_line(plan, config))
    print_table(lengths(plan), console)
    print_table(works(plan), console)
    if config.trainer.accelerator != "cpu":
        print_table(memories(plan, config), console)
        for line in misfits(plan, config):
            console.print(line)
    way = WAYS[config.llm.shared_prefix]
    steps = plan.sft[way].tokens.steps
    epochs = config.sft.max_epochs * (config.sft.steps_per_epoch or steps) / steps
    sft, augmentation = plan.sft[way], plan.augmentation[way]
    flops = epochs * sft.flops + augmentation.flops
    console.print(
        f"All of TSLRec's language-model work, {epochs:g} epoch{'s' if epochs > 1 else ''} of SFT and the "
        "augmentation: "
        f"{flops / 1e12:,.0f} TFLOP, {duration(epochs * sft.seconds + augmentation.seconds)} on one device. "
        "An epoch of E4SRec computes "
        f"{plan.e4srec['shared'].flops / sft.flops:.1f} times what an epoch of the SFT does "
        f"({plan.e4srec['naive'].flops / plan.sft['naive'].flops:.1f} times, both in the naive way).",
    )


def device_line(plan: Plan, config: Config) -> str:
    """The rates that times are for, and where each is from."""
    profile = plan.device
    named = isinstance(config.trainer.device, str)
    product = "bf16_tflops" if plan.placement.in_16_bits else "fp32_tflops"
    kind = "16-bit" if plan.placement.in_16_bits else "fp32"
    parts = [
        f"{kind} products {rate(profile, product, 'TFLOP/s')}, {profile.step_share:.0%} of it in a large step "
        f"({profile.source('step_share')})"
    ]
    if profile.memory_gbs is not None:
        parts.append(f"memory {rate(profile, 'memory_gbs', 'GB/s')}")
    if profile.link_gbs is not None:
        parts.append(f"PCIe {rate(profile, 'link_gbs', 'GB/s')}")
    if profile.memory_gib is not None:
        parts.append(f"{profile.memory_gib:g} GiB")
    name = f"{config.trainer.device}, {profile.title}" if named else profile.title
    return f"Device: {name}: {'; '.join(parts)}"


def rate(profile: DeviceProfile, name: str, unit: str) -> str:
    """One number of a profile with its unit, and where it is from."""
    return f"{getattr(profile, name):,g} {unit} ({profile.source(name)})"


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
    table = Table(title="Language-model work", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("what", no_wrap=True)
    table.add_column("prompt")
    for name in ("examples", "steps", "tokens", "padding", "TFLOP", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
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
        work.bound_by,
    ]


def memories(plan: Plan, config: Config) -> Table:
    """Memory per GPU and of the host on one node, by stage and number of GPUs."""
    table = Table(title="Memory, GiB", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("stage", no_wrap=True)
    for name in ("GPUs", "weights", "states", "gathered", "activations", "others", "context", "a GPU", "host"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage, of_stage in (("SFT", memory_of), ("E4SRec", e4srec_memory_of)):
        for devices in DEVICES:
            memory = of_stage(plan, config, devices)
            table.add_row(stage if devices == DEVICES[0] else "", str(devices), *memory_cells(memory))
    table.add_row("augmentation", "any", *memory_cells(augmentation_memory_of(plan, config)))
    return table


def memory_cells(memory: Memory) -> list[str]:
    """One row's numbers as texts."""
    numbers = (
        memory.weights,
        memory.states,
        memory.working,
        memory.activations,
        memory.others,
        memory.context,
        memory.device,
        memory.host,
    )
    return [f"{number:.2f}" for number in numbers]


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
