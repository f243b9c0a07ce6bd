"""The settings that tell a recorded result from others, whenever it was recorded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tslrec.config import section_defaults
from tslrec.pipeline.choices import choice
from tslrec.pipeline.nested import filled, flatten
from tslrec.pipeline.result_members import of_members
from tslrec.stages.registry import find_stage

REMOVED_SETTINGS: Mapping[str, Any] = {
    "ease.rank": None,
    "fusion.gate_bias": 0.0,
    "fusion.knowledge_dropout": 0.0,
    "fusion.knowledge_scale": 1.0,
    "fusion.sides": "both",
    "fusion.whitened_size": None,
    "llm.attention": "sdpa",
    "model.padding_row": False,
    "preferences.softness": 0.0,
    "sft.reduction": "mean",
    "sft.target": "training",
}
"""Settings that no longer exist, by key, with the value that today's code has built in.

A recorded result with this value has the same settings as one without the key.
"""

NO_DIFFERENCE = frozenset({"title", "place"})
"""Last parts of keys on which no result depends."""

DATA_SETTINGS = ("reader", "min_user_interactions", "min_item_interactions")
"""Of the section `data`: what determines the data set, beside the content of its raw file."""


def setting(result: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the stages of a run read, by their whole key: `training.batch_size` and the like.

    Among them are those that determine the data set, but for the content of its file (`tslrec.pipeline.identity`), and
    the precision of the stages. Of a `_target_` only the last part counts, so that code may move. A setting that was
    added after the run has its default. A run that continues another one names it.
    """
    config = result["config"]
    stages = config["method"]["stages"] if "method" in config else choice("method", result["method"])["stages"]
    read = dict.fromkeys(name for stage in stages for name in sections_read(stage, config))
    sections = {name: with_defaults(name, config.get(name, section_defaults(name))) for name in read}
    sections["data"] = data_settings(config)
    sections["trainer"] = precisions(stages, config)
    found = {
        key: class_name(value) if key.endswith("._target_") else value
        for key, value in flatten(sections)
        if key.split(".")[-1] not in NO_DIFFERENCE and not (key in REMOVED_SETTINGS and value == REMOVED_SETTINGS[key])
    }
    if config.get("continue_from") is not None:
        found["continue_from"] = run_without_seed(Path(config["continue_from"]).name)
    found.update(of_members(result, setting))
    return found


def data_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recorded configuration that determine the data set: its reader and its filters."""
    recorded = config.get("data", {})
    data = {**(section_defaults("data") or {}), **recorded}
    found = {name: data[name] for name in DATA_SETTINGS}
    if not isinstance(found["reader"], Mapping):
        return {name: value for name, value in found.items() if name != "reader"}
    listed = choice("data", str(recorded.get("name"))).get("reader", {})
    if class_name(listed.get("_target_")) == class_name(found["reader"].get("_target_")):
        found["reader"] = filled(found["reader"], listed)
    return found


def precisions(stages: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """The precisions in which the stages of a recorded configuration compute, by their keys in `trainer`.

    Args:
        stages: the names of the method's stages.
        config: the recorded configuration.
    """
    trainer = {**(section_defaults("trainer") or {}), **config.get("trainer", {})}
    declared = [stage for name in stages if (stage := find_stage(name)) is not None]
    found = {}
    if any("training" in stage.sections for stage in declared):
        found["precision"] = trainer["precision"]
    if any(stage.runs_llm for stage in declared):
        found["llm_precision"] = trainer["llm_precision"]
    # Of products in float32: it counts on GPUs alone.
    if trainer["accelerator"] in ("gpu", "cuda") and trainer.get("matmul_precision", "highest") != "highest":
        found["matmul_precision"] = trainer["matmul_precision"]
    return found


def class_name(target: Any) -> str:
    """The last part of a `_target_`: code may move, but another class or function gives other results."""
    return str(target).rpartition(".")[2]


def run_without_seed(name: str) -> str:
    """The name of a run (`run_folder`) without seed and key, for runs of several seeds that each continue their own."""
    return re.sub(r"-seed\d+-[0-9a-f]+$", "", name)


def sections_read(stage: str, config: Mapping[str, Any]) -> Sequence[str]:
    """The sections of the configuration that a stage reads; all recorded ones for a stage that is unknown today."""
    found = find_stage(stage)
    if found is not None:
        return found.sections
    return [name for name, section in config.items() if isinstance(section, Mapping)]


def with_defaults(name: str, section: Any) -> Any:
    """A recorded section with its absent settings filled in, from its dataclass or from the YAML file of its choice.

    Args:
        name: the section's name.
        section: its recorded value.
    """
    if not isinstance(section, Mapping):
        return section
    defaults = section_defaults(name)
    return filled(section, choice(name, str(section.get("name"))) if defaults is None else defaults)
