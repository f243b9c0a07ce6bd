"""What measured SFT steps have in common on the card, under ZeRO-3 and on quantised weights: batches and switches."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from gpu_parts.bench import Bench
from gpu_parts.llm13b_planned import fits, planned_memory

if TYPE_CHECKING:
    from gpu_parts.random_llm import Subject
    from gpu_parts.timed_fit import Group


def sft_groups(bench: Bench, subject: Subject, sizes: list[tuple[int, int, int, bool]], **changes: Any) -> list[Group]:
    """Groups of SFT steps.

    Args:
        bench: of the step.
        subject: what is measured.
        sizes: of each group: users per step, steps, length of a row in tokens, gradient checkpointing.
        changes: fields of `Placement`.
    """
    from gpu_parts.random_llm import SEED, adapter_parameters, cost_of
    from gpu_parts.timed_fit import Group
    from tslrec.data.batching import RandomBatches
    from tslrec.llm.packing import ROW_LENGTH, Packer
    from tslrec.stages.sft.data import PreferenceDataModule

    instruction, adapter = len(subject.prompt.instruction), adapter_parameters(subject)
    groups = []
    for users, steps, row_length, checkpointing in sizes:
        data = PreferenceDataModule(
            subject.interactions,
            subject.targets_UK,
            Packer(len(subject.prompt.response), row_length),
            max_len=subject.config.training.max_len,
            batch_size=users,
            seed=SEED,
        )
        name = f"users_{users}"
        name += "" if row_length == ROW_LENGTH else f"_rows_of_{row_length}"
        name += "_checkpointed" if checkpointing else ""
        batches = [batch for batch, _ in zip(RandomBatches(len(data.trained), users, SEED), range(steps), strict=False)]

        def count(batch: Any, checkpointing: bool = checkpointing) -> Any:
            return cost_of(
                subject.shape, batch.examples, instruction, adapter, training=True, checkpointing=checkpointing
            )

        group = Group(
            name,
            [partial(data.collate, data.trained[places]) for places in batches],
            count,
            # The first step of a group meets new sizes, for which memory is asked of the driver.
            warm_up=min(2, len(batches) - 1),
            checkpointing=checkpointing,
        )
        costs = [count(make()) for make in group.batches]
        largest = sum(costs[1:], start=costs[0]).largest
        planned = planned_memory(subject, largest, gradient_checkpointing=checkpointing, **changes)
        if fits(bench, name, planned.device):
            groups.append(group)
    return groups


def calibration_sample(subject: Subject) -> Any:
    """The users by which the stage standardises the group head's inputs."""
    from gpu_parts.random_llm import SEED
    from tslrec.llm.packing import Packer
    from tslrec.stages.sft.data import PreferenceDataModule
    from tslrec.stages.sft.stage import CALIBRATION_USERS

    data = PreferenceDataModule(
        subject.interactions,
        subject.targets_UK,
        Packer(len(subject.prompt.response)),
        max_len=subject.config.training.max_len,
        batch_size=16,
        seed=SEED,
    )
    return data.sample(CALIBRATION_USERS)


def switch_checkpointing(base: Any, wanted: bool) -> None:
    """Turns gradient checkpointing on or off."""
    from tslrec.llm.gradient_checkpointing import checkpoint_layers

    for layer in base.layers:
        vars(layer).pop("forward", None)
    if wanted:
        checkpoint_layers(base)
