"""The whole pipeline on one page: every stage, declared once; free of heavy imports.

A stage is a module with a function `run(context)`. The function reads the files of earlier stages, writes its own files
into the folder it is given, and returns the stage's metrics. Everything that the rest of the code must know of a stage
is declared here.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tslrec.config import Config, non_defaults
from tslrec.stages.key_settings import (
    augment_settings,
    e4srec_settings,
    fusion_settings,
    item_index_settings,
    p5_settings,
    pod_settings,
    projection_settings,
    ranker_settings,
    recommender_settings,
    sft_settings,
    untuned_llm_settings,
    with_llm,
)

Settings = Callable[[Config], dict[str, Any]]
"""Reads from a configuration what determines a stage's result."""

DATA_VERSION = 1
"""Version of the ingestion's code. The ingestion is not a stage: it runs once for all methods."""

TITLES_VERSION = 1
"""Version of the code that reads items' titles. They are no stage either: they are read if a stage reads `titles`."""

INGESTED = {"data": DATA_VERSION, "titles": TITLES_VERSION}
"""Results that stages read and no stage makes, with the versions of their code."""


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    Attributes:
        name: the stage's name in `method.stages`, and of the folder of its results.
        version: of the stage's code; raise it whenever the same settings give other results.
        module: the module with `run(context)`; imported only when the stage runs.
        reads: the stages whose results it reads, `data`, and `titles` if it reads the items' titles
            (`tslrec.data.item_titles`). A fusion also reads the stages that make its inputs.
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
        generates_lists: whether its ranks are places in lists that it generates (`tslrec.evaluation.generated_lists`)
            instead of a full ranking. Metrics then reach no further than a list, and every view of its numbers says so.
        selected_by_loss: whether the validation loss selects its weights, not ranks as `training.selection` says.
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
    generates_lists: bool = False
    selected_by_loss: bool = False

    def run(self, context: Any) -> dict[str, Any]:
        """Computes the stage's result.

        Args:
            context: a `tslrec.stages.context.StageContext`.

        Returns:
            The stage's metrics.
        """
        metrics: dict[str, Any] = importlib.import_module(self.module).run(context)
        return metrics


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
    Stage(
        "ranker",
        version=1,
        module="tslrec.stages.llamarec.stage",
        reads=("data", "backbone", "titles"),
        settings=ranker_settings,
        sections=("llm", "llamarec"),
        label=with_llm,
        runs_llm=True,
        restored_by="tslrec.stages.llamarec.restored:restore",
    ),
    Stage(
        "item_index",
        version=1,
        module="tslrec.stages.item_index.stage",
        reads=("data",),
        settings=item_index_settings,
        sections=("item_index",),
        label=lambda config: config.item_index.kind,
        together=False,
    ),
    Stage(
        "p5",
        version=1,
        module="tslrec.stages.p5.stage",
        reads=("data", "item_index"),
        settings=p5_settings,
        sections=("training", "t5", "p5"),
        label=lambda config: f"{config.t5.name}-{config.item_index.kind}",
        settings_of="target",
        restored_by="tslrec.stages.p5.restored:restore",
        generates_lists=True,
    ),
    Stage(
        "pod",
        version=1,
        module="tslrec.stages.pod.stage",
        reads=("data",),
        settings=pod_settings,
        sections=("training", "t5", "pod"),
        label=lambda config: config.t5.name,
        settings_of="target",
        restored_by="tslrec.stages.pod.restored:restore",
        generates_lists=True,
        selected_by_loss=True,
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


def generates_lists(stages: Iterable[str]) -> bool:
    """Whether a method of these stages ranks by lists that it generates (`Stage.generates_lists`).

    Args:
        stages: names of stages; those that are unknown today, as in older records, generate none.
    """
    found = (find_stage(name) for name in stages)
    return any(stage.generates_lists for stage in found if stage is not None)


def code_version(name: str) -> int | None:
    """The version of a stage's code, or of the ingestion of `data` or `titles`; None for an unknown stage."""
    if name in INGESTED:
        return INGESTED[name]
    stage = find_stage(name)
    return None if stage is None else stage.version


def runs_llm(config: Config) -> bool:
    """Whether any stage of the configured method runs the language model."""
    return any(stage.runs_llm for stage in stages_of(config))


def runs_t5(config: Config) -> bool:
    """Whether any stage of the configured method reads the section of the encoder-decoder language model."""
    return any("t5" in stage.sections for stage in stages_of(config))


def reads_titles(config: Config) -> bool:
    """Whether any stage of the configured method reads the items' titles."""
    return any("titles" in stage.reads for stage in stages_of(config))


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
    """The stages whose results a stage reads, `data` and `titles`; for a fusion, those that make its inputs, too."""
    if "fusion" not in stage.sections:
        return stage.reads
    return (*stage.reads, *sorted({maker_of(config, array) for array in fusion_inputs(config.fusion)}))
