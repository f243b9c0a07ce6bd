"""The memory of the stages that a plan covers, by number of devices, and what to set where one does not fit."""

from __future__ import annotations

from dataclasses import replace

from tslrec.config import Config
from tslrec.reports.costs.memory import Memory, inference_memory, training_memory
from tslrec.reports.costs.placement import Placement, placement_of
from tslrec.reports.costs.work import Plan

WAYS = {True: "shared", False: "naive"}
"""The name of a way to run the prompt in a plan, by `llm.shared_prefix`."""


def memory_of(plan: Plan, config: Config, devices: int, placement: Placement | None = None) -> Memory:
    """The memory of the preference SFT.

    Args:
        plan: the plan.
        config: the configuration that it is of.
        devices: number of devices, all on one node.
        placement: how the language model is held; None: as the plan says.
    """
    step = plan.sft[WAYS[config.llm.shared_prefix]].tokens.largest
    return training_memory(
        plan.shape,
        config.llm.lora,
        plan.trainable,
        step,
        placement or plan.placement,
        devices,
        num_items=plan.num_items,
        item_size=int(config.model["hidden_size"]),
    )


def e4srec_memory_of(plan: Plan, config: Config, devices: int) -> Memory:
    """The memory of E4SRec's training; the arguments are those of `memory_of`."""
    return training_memory(
        plan.shape,
        config.e4srec.lora,
        plan.e4srec_trainable,
        plan.e4srec[WAYS[config.llm.shared_prefix]].tokens.largest,
        plan.placement,
        devices,
        num_items=plan.num_items,
        item_size=int(config.model["hidden_size"]),
    )


def augmentation_memory_of(plan: Plan, config: Config) -> Memory:
    """The memory of the augmentation, the same on each device."""
    # It loads the weights outside of the trainer, in `llm.dtype`.
    placement = replace(plan.placement, dtype=config.llm.dtype)
    item_size = int(config.model["hidden_size"])
    return inference_memory(plan.shape, placement, num_items=plan.num_items, item_size=item_size)


def misfits(plan: Plan, config: Config) -> list[str]:
    """A line for each stage of TSLRec that does not fit one device, with what would."""
    capacity = plan.device.memory_gib
    if capacity is None:
        return []
    device = config.trainer.device if isinstance(config.trainer.device, str) else plan.device.title
    lines = []
    sft, augmentation = memory_of(plan, config, 1).device, augmentation_memory_of(plan, config).device
    if sft > capacity:
        remedies = [words for words, way in remedies_of(config) if memory_of(plan, config, 1, way).device <= capacity]
        advice = ", or ".join(remedies) or "lower sft.batch_size, or a smaller llm"
        lines.append(f"SFT: {sft:.1f} GiB do not fit one {device} ({capacity:g} GiB): {advice}")
    if augmentation > capacity:
        # ZeRO partitions no quantised weights, and what is read here is whole on each device under every strategy.
        quantising = plan.placement.zero_stage == 0 and plan.placement.weight_bits != 4
        advice = "llm.weight_bits=8 or 4, or a smaller llm" if quantising else "a smaller llm, or a larger GPU"
        lines.append(f"augmentation: {augmentation:.1f} GiB do not fit one {device} ({capacity:g} GiB): {advice}")
    return lines


def remedies_of(config: Config) -> list[tuple[str, Placement]]:
    """Settings that take less memory than those of a configuration, as words of the command line."""
    now = placement_of(config)
    found = []
    if not now.gradient_checkpointing:
        found.append(("llm.gradient_checkpointing=true", replace(now, gradient_checkpointing=True)))
    if now.zero_stage == 0:
        for bits in (8, 4):
            if bits < (now.weight_bits or 16):
                found.append((f"llm.weight_bits={bits}", replace(now, weight_bits=bits)))
    if now.weight_bits is None and not now.streams_weights:
        offloaded = replace(now, zero_stage=3, offload_optimizer=True, offload_parameters=True)
        found.append(("trainer=deepspeed_zero3_offload", offloaded))
    return found
