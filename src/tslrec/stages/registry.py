"""The whole pipeline on one page: every stage, declared once; free of heavy imports.

A stage is a module with a function `run(context)`. The function reads the files of earlier stages, writes its own files
into the folder it is given, and returns the stage's metrics. Everything that the rest of the code must know of a stage
is declared here.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tslrec.config import DEFAULT_METRICS, Config, non_defaults
from tslrec.stages.sft.prompt import INSTRUCTION, RESPONSE
from tslrec.system.targets import target_settings

Settings = Callable[[Config], dict[str, Any]]
"""Reads from a configuration what determines a stage's result."""

DATA_VERSION = 1
"""Version of the ingestion's code. The ingestion is not a stage: it runs once for all methods."""


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    Attributes:
        name: the stage's name in `method.stages`, and of the folder of its results.
        version: of the stage's code; raise it whenever the same settings give other results.
        module: the module with `run(context)`; imported only when the stage runs.
        reads: the stages whose results it reads, and `data`. A fusion also reads the stages that make its inputs.
        settings: the part of the configuration that determines its result, beside the results it reads and the seed.
        sections: the sections of the configuration that `settings` reads; tables compare runs by these.
        label: the readable part of the names of its result folders, after the data set's name.
        makes: the arrays that a fusion may ask for by the name of a parameter: `knowledge_IH` `[I + 1, H]`,
            `clusters_I` `[I + 1]` (I items, row 0 for padding; H size of an item's knowledge).
        runs_llm: whether it runs the language model, so that the model's weights determine its result, too.
        together: whether every process of a job runs it and rank 0 writes; otherwise rank 0 runs it alone while the
            others wait.
        settings_of: which configuration it runs with if `source_model` names another backbone for stage 1: the
            source's, the target's (the run's own), or both: the run's, with the source's model and training.
        continues: how it continues a finished run (`continue_from`): `reuse` takes the earlier result as it is; `carry`
            computes a new one from the earlier result, items that are gone vanish; `extend` does so and needs all
            earlier items. None: it cannot.
        restored_by: of a stage whose result is a recommender, the function `restore(sources, folder)` that rebuilds it
            (`tslrec.stages.restored.Restored`), as `module:function`; imported only when somebody asks for it.
    """

    name: str
    version: int
    module: str
    reads: tuple[str, ...]
    settings: Settings
    sections: tuple[str, ...] = ()
    label: Callable[[Config], str] = lambda config: str(config.model["name"])
    makes: tuple[str, ...] = ()
    runs_llm: bool = False
    together: bool = True
    settings_of: Literal["source", "target", "both"] = "both"
    continues: Literal["reuse", "carry", "extend"] | None = None
    restored_by: str | None = None

    def run(self, context: Any) -> dict[str, Any]:
        """Computes the stage's result.

        Args:
            context: a `tslrec.stages.context.StageContext`.

        Returns:
            The stage's metrics.
        """
        metrics: dict[str, Any] = importlib.import_module(self.module).run(context)
        return metrics


def metric_settings(config: Config) -> dict[str, Any]:
    """Of the stages that evaluate: the metrics, in no particular order, where they are others than the default."""
    chosen = set(config.metrics)
    return {} if chosen == set(DEFAULT_METRICS) else {"metrics": sorted(chosen)}


def product_settings(config: Config) -> dict[str, Any]:
    """Of the stages that train on a GPU: how float32 products are rounded, where it is another way than the default.

    CPUs ignore the setting, so that it is no part of what determines their results.
    """
    chosen = config.trainer.matmul_precision
    return {} if chosen == "highest" or not config.trainer.on_gpu else {"matmul_precision": chosen}


def recommender_settings(config: Config) -> dict[str, Any]:
    """What determines the result of a stage that trains a recommender."""
    return {
        "model": target_settings("model", config.model),
        "training": non_defaults(config.training),
        "precision": config.trainer.precision,
        **product_settings(config),
        **metric_settings(config),
    }


def fusion_settings(config: Config) -> dict[str, Any]:
    """What determines the fusion stage's result."""
    return {**recommender_settings(config), "fusion": target_settings("fusion", config.fusion)}


def llm_settings(config: Config, *, own_lora: bool = False) -> dict[str, Any]:
    """What determines the results of all stages that run the language model.

    Args:
        config: what the stage runs with.
        own_lora: whether the stage does not use the LoRA of the section `llm`.
    """
    unread = {"shape", "gradient_checkpointing"} | ({"lora"} if own_lora else set())
    llm = {name: value for name, value in non_defaults(config.llm).items() if name not in unread}
    return {"llm": llm, "precision": config.trainer.llm_precision}


def sft_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the preference SFT."""
    unread = {"augment_batch_size", "augment_shard_size"}
    if config.sft.held_back == 0:
        unread |= {"patience", "eval_batch_size"}
    sft = {name: value for name, value in non_defaults(config.sft).items() if name not in unread}
    return {
        **llm_settings(config),
        **product_settings(config),
        "prompt": [INSTRUCTION, RESPONSE],
        "max_len": config.training.max_len,
        "sft": sft,
    }


def augment_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the augmentation."""
    return {
        **llm_settings(config),
        "prompt": [INSTRUCTION, RESPONSE],
        "knowledge": non_defaults(config.knowledge),
    }


def untuned_llm_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the ablation without SFT."""
    return {
        **llm_settings(config, own_lora=True),
        "prompt": [INSTRUCTION, RESPONSE],
        "knowledge": non_defaults(config.knowledge),
        "num_clusters": config.preferences.num_clusters,
    }


def e4srec_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the rival method E4SRec."""
    return {
        **llm_settings(config, own_lora=True),
        **product_settings(config),
        "max_len": config.training.max_len,
        "selection": config.training.selection,
        "e4srec": non_defaults(config.e4srec),
        **metric_settings(config),
    }


def projection_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the ablation with a random projection: the size of its output."""
    from tslrec.llm.shape import shape_of

    return {"size": shape_of(config.llm).hidden_size}


def with_llm(config: Config) -> str:
    """The label of a stage that runs the language model."""
    return f"{config.model['name']}-{config.llm.name}"


STAGES: tuple[Stage, ...] = (
    Stage(
        "backbone",
        version=7,
        module="tslrec.stages.backbone",
        reads=("data",),
        settings=recommender_settings,
        sections=("model", "source_model", "training"),
        settings_of="source",
        continues="carry",
        restored_by="tslrec.stages.restored:restore_backbone",
    ),
    Stage(
        "preferences",
        version=1,
        module="tslrec.stages.preferences",
        reads=("data", "backbone"),
        settings=lambda config: {"preferences": non_defaults(config.preferences)},
        sections=("preferences",),
        label=lambda config: f"{config.model['name']}-k{config.preferences.num_clusters}",
        makes=("clusters_I",),
        together=False,
        continues="carry",
    ),
    Stage(
        "sft",
        version=5,
        module="tslrec.stages.sft.stage",
        reads=("data", "backbone", "preferences"),
        settings=sft_settings,
        sections=("llm", "sft"),
        label=with_llm,
        runs_llm=True,
        continues="reuse",
    ),
    Stage(
        "augment",
        version=3,
        module="tslrec.stages.augment",
        reads=("data", "backbone", "preferences", "sft"),
        settings=augment_settings,
        sections=("llm", "knowledge"),
        label=with_llm,
        makes=("knowledge_IH",),
        runs_llm=True,
        continues="extend",
    ),
    Stage(
        "own_embeddings",
        version=1,
        module="tslrec.stages.ablations.own_embeddings",
        reads=("data", "backbone"),
        settings=lambda config: {},
        makes=("knowledge_IH",),
        together=False,
    ),
    Stage(
        "random_projection",
        version=1,
        module="tslrec.stages.ablations.random_projection",
        reads=("data", "backbone"),
        settings=projection_settings,
        sections=("llm",),
        makes=("knowledge_IH",),
        together=False,
    ),
    Stage(
        "untuned_llm",
        version=3,
        module="tslrec.stages.ablations.untuned_llm",
        reads=("data", "backbone"),
        settings=untuned_llm_settings,
        sections=("preferences", "llm", "knowledge"),
        label=with_llm,
        makes=("knowledge_IH",),
        runs_llm=True,
        together=False,
    ),
    Stage(
        "fusion",
        version=8,
        module="tslrec.stages.fusion",
        reads=("data",),
        settings=fusion_settings,
        sections=("model", "fusion", "training"),
        label=lambda config: f"{config.model['name']}-{config.fusion['name']}",
        settings_of="target",
        continues="carry",
        restored_by="tslrec.stages.restored:restore_fusion",
    ),
    Stage(
        "e4srec",
        version=3,
        module="tslrec.stages.e4srec.stage",
        reads=("data", "backbone"),
        settings=e4srec_settings,
        sections=("llm", "e4srec"),
        label=with_llm,
        runs_llm=True,
        restored_by="tslrec.stages.e4srec.restored:restore",
    ),
)
"""Every stage. A method is a selection of them, in this order."""


def stage_names() -> tuple[str, ...]:
    """The names of all stages, in the order of `STAGES`."""
    return tuple(stage.name for stage in STAGES)


def find_stage(name: str) -> Stage | None:
    """The stage with a name; None if there is none."""
    return next((stage for stage in STAGES if stage.name == name), None)


def stages_of(config: Config) -> list[Stage]:
    """The stages of the configured method, in order."""
    return [stage for stage in STAGES if stage.name in config.method.stages]


def code_version(name: str) -> int | None:
    """The version of a stage's code, or of the ingestion, `data`; None for an unknown stage."""
    if name == "data":
        return DATA_VERSION
    stage = find_stage(name)
    return None if stage is None else stage.version


def runs_llm(config: Config) -> bool:
    """Whether any stage of the configured method runs the language model."""
    return any(stage.runs_llm for stage in stages_of(config))


def arrays_made() -> frozenset[str]:
    """The names of all arrays that stages make for fusions."""
    return frozenset(array for stage in STAGES for array in stage.makes)


def makers_of(array: str) -> list[Stage]:
    """The stages that make an array for fusions; a method has at most one of them."""
    return [stage for stage in STAGES if array in stage.makes]


def maker_of(config: Config, array: str) -> str:
    """The name of the stage of the configured method that makes an array."""
    return next(stage.name for stage in makers_of(array) if stage.name in config.method.stages)


def fusion_inputs(fusion: Mapping[str, Any]) -> list[str]:
    """The arrays made by stages that a fusion asks for, by the names of its parameters.

    Args:
        fusion: the `fusion` section.
    """
    module, _, name = str(fusion["_target_"]).rpartition(".")
    made = arrays_made()
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    return [parameter for parameter in parameters if parameter in made]


def inputs_of(config: Config, stage: Stage) -> tuple[str, ...]:
    """The stages whose results a stage reads, and `data`; for a fusion, those that make its inputs among them."""
    if "fusion" not in stage.sections:
        return stage.reads
    return (*stage.reads, *sorted({maker_of(config, array) for array in fusion_inputs(config.fusion)}))
