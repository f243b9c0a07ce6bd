"""What the stages of a configured method need and make together; free of heavy imports."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from tslrec.config import Config
from tslrec.stages import registry
from tslrec.stages.declaration import MEMBERS, Stage
from tslrec.system.targets import find_target


def stages_of(config: Config) -> list[Stage]:
    """The stages of the configured method, in order."""
    return [stage for stage in registry.STAGES if stage.name in config.method.stages]


def runs_llm(config: Config) -> bool:
    """Whether any stage of the configured method runs the language model."""
    return any(stage.runs_llm for stage in stages_of(config))


def runs_t5(config: Config) -> bool:
    """Whether any stage of the configured method reads the section of the encoder-decoder language model."""
    return any("t5" in stage.sections for stage in stages_of(config))


def reads_titles(config: Config) -> bool:
    """Whether any stage of the configured method reads the items' titles."""
    return any("titles" in stage.reads_with(config) for stage in stages_of(config))


def reads_members(config: Config) -> bool:
    """Whether any stage of the configured method reads the recommenders of the run's members."""
    return any(MEMBERS in stage.reads for stage in stages_of(config))


def member_name(number: int) -> str:
    """The name of a member's recommender among what a stage reads; the first member's number is 1."""
    return f"member-{number}"


def maker_of(config: Config, array: str) -> str:
    """The name of the stage of the configured method that makes an array."""
    return next(stage.name for stage in registry.makers_of(array) if stage.name in config.method.stages)


def fusion_inputs(fusion: Mapping[str, Any]) -> list[str]:
    """The arrays made by stages that a fusion asks for, by the names of its parameters.

    Args:
        fusion: the `fusion` section.

    Raises:
        UserError: if its class cannot be imported, as that of an older run may not be any more.
    """
    made = registry.arrays_made()
    parameters = inspect.signature(find_target("fusion", fusion)).parameters
    return [parameter for parameter in parameters if parameter in made]


def inputs_of(config: Config, stage: Stage) -> tuple[str, ...]:
    """The stages whose results a stage reads, `data`, `titles` and the run's members, each by `member_name`.

    For a fusion, also those that make its inputs, and the soft targets of the method.
    """
    reads = tuple(name for name in stage.reads_with(config) if name != MEMBERS)
    if MEMBERS in stage.reads:
        reads += tuple(member_name(number) for number in range(1, len(config.members) + 1))
    if "fusion" not in stage.sections:
        return reads
    soft_targets = {"soft_targets"} & set(config.method.stages)
    return (*reads, *sorted({maker_of(config, array) for array in fusion_inputs(config.fusion)} | soft_targets))
