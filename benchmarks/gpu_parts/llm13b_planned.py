"""What `tslrec plan` says of a step of the part `llm13b`: its memory, its seconds, whether it fits into the card."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpu_parts.bench import Bench

if TYPE_CHECKING:
    from gpu_parts.random_llm import Subject
    from gpu_parts.timed_fit import Timed
    from tslrec.reports.costs.activations import Step as PlannedStep
    from tslrec.reports.costs.memory import Memory
    from tslrec.reports.costs.placement import Placement

USABLE = 0.92
"""Share of the card's memory that a group may be planned to take; another is not tried."""


def placement_with(subject: Subject, **changes: Any) -> Placement:
    """How the plan holds the language model, with some settings changed."""
    return replace(subject.plan.placement, **changes)


def planned_memory(subject: Subject, step: PlannedStep, *, rival: bool = False, **changes: Any) -> Memory:
    """The plan's memory for a step.

    Args:
        subject: what is measured.
        step: the largest.
        rival: of E4SRec's training; otherwise of the SFT's.
        changes: fields of `Placement`.
    """
    from tslrec.reports.costs.memory import training_memory

    config, plan = subject.config, subject.plan
    return training_memory(
        subject.shape,
        config.e4srec.lora if rival else config.llm.lora,
        plan.e4srec_trainable if rival else plan.trainable,
        step,
        placement_with(subject, **changes),
        num_items=plan.num_items,
        item_size=int(config.model["hidden_size"]),
    )


def planned_seconds(subject: Subject, timed: Timed, **changes: Any) -> float:
    """The plan's seconds of one step of a group; `changes` are fields of `Placement`."""
    from tslrec.reports.costs.timing import bound_of, training_traffic

    placement = placement_with(subject, gradient_checkpointing=timed.group.checkpointing, **changes)
    traffic = training_traffic(subject.shape, placement)
    found = bound_of(timed.cost.flops, timed.steps, traffic, subject.plan.device, in_16_bits=True)
    return found.seconds / timed.steps


def fits(bench: Bench, name: str, planned: float) -> bool:
    """Whether a group is planned to fit into the card's memory; says so if not."""
    if not bench.on_card:
        return True
    import torch

    there = torch.cuda.get_device_properties(0).total_memory / 2**30
    if planned > USABLE * there:
        bench.say(f"{name}: not tried, planned to take {planned:.1f} of the card's {there:.1f} GiB")
    return planned <= USABLE * there
