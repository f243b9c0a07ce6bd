"""The whole pipeline on one page: every stage, declared once; free of heavy imports.

A stage is a module with a function `run(context)`. The function reads the files of earlier stages, writes its own files
into the folder it is given, and returns the stage's metrics. Everything that the rest of the code must know of a stage
is declared here.
"""

from __future__ import annotations

from collections.abc import Iterable

from tslrec.config import non_defaults
from tslrec.stages.declaration import MEMBERS, Stage, titles_of_items
from tslrec.stages.key_settings import (
    augment_settings,
    e4srec_settings,
    ease_settings,
    ensemble_settings,
    fusion_settings,
    item_index_settings,
    item_text_settings,
    p5_llm_settings,
    p5_settings,
    pod_settings,
    projection_settings,
    ranker_settings,
    recommender_settings,
    sft_settings,
    soft_target_settings,
    title_states_settings,
    untuned_llm_settings,
    with_llm,
)

DATA_VERSION = 1
"""Version of the ingestion's code. The ingestion is not a stage: it runs once for all methods."""

TITLES_VERSION = 1
"""Version of the code that reads items' titles. They are no stage either: they are read if a stage reads `titles`."""

INGESTED = {"data": DATA_VERSION, "titles": TITLES_VERSION}
"""Results that stages read and no stage makes, with the versions of their code."""

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
        reads_if=titles_of_items,
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
        reads_if=titles_of_items,
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
        reads_if=titles_of_items,
        settings=untuned_llm_settings,
        sections=("preferences", "llm", "sft", "knowledge"),
        label=with_llm,
        makes=("knowledge_IH",),
        runs_llm=True,
        together=False,
    ),
    Stage(
        "title_states",
        version=1,
        module="tslrec.stages.title_states",
        reads=("data", "titles"),
        settings=title_states_settings,
        sections=("llm", "item_text"),
        label=lambda config: config.llm.name,
        runs_llm=True,
        seeded=False,
    ),
    Stage(
        "item_text",
        version=1,
        module="tslrec.stages.item_text",
        reads=("data", "title_states"),
        settings=item_text_settings,
        sections=("item_text",),
        label=lambda config: config.llm.name,
        makes=("knowledge_IH",),
        together=False,
    ),
    Stage(
        "ease",
        version=1,
        module="tslrec.stages.ease.stage",
        reads=("data",),
        settings=ease_settings,
        sections=("ease", "training"),
        label=lambda config: f"penalty{config.ease.penalty:g}",
        together=False,
        settings_of="target",
        restored_by="tslrec.stages.ease.restored:restore",
        seeded=False,
    ),
    Stage(
        "ensemble",
        version=1,
        module="tslrec.stages.ensemble.stage",
        reads=("data", MEMBERS),
        settings=ensemble_settings,
        sections=("training", "ensemble"),
        label=lambda config: f"{len(config.members)}-members",
        together=False,
        settings_of="target",
        restored_by="tslrec.stages.ensemble.restored:restore",
    ),
    Stage(
        "soft_targets",
        version=1,
        module="tslrec.stages.soft_targets",
        reads=("data", "ensemble", MEMBERS),
        settings=soft_target_settings,
        sections=("soft_targets",),
        together=False,
        settings_of="target",
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
        reranks=True,
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
        version=2,
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
        "p5_llm",
        version=1,
        module="tslrec.stages.p5_llm.stage",
        reads=("data", "item_index"),
        settings=p5_llm_settings,
        sections=("training", "llm", "p5"),
        label=lambda config: f"{config.llm.name}-{config.item_index.kind}",
        runs_llm=True,
        settings_of="target",
        restored_by="tslrec.stages.p5_llm.restored:restore",
        generates_lists=True,
    ),
    Stage(
        "pod",
        version=2,
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


def generates_lists(stages: Iterable[str]) -> bool:
    """Whether a method of these stages ranks by lists that it generates (`Stage.generates_lists`).

    Args:
        stages: names of stages; those that are unknown today, as in older records, generate none.
    """
    found = (find_stage(name) for name in stages)
    return any(stage.generates_lists for stage in found if stage is not None)


def trains_backbone(stages: Iterable[str]) -> bool:
    """Whether a method of these stages trains a backbone.

    Args:
        stages: names of stages; those that are unknown today, as in older records, train none.
    """
    found = (find_stage(name) for name in stages)
    return any("model" in stage.sections for stage in found if stage is not None)


def code_version(name: str) -> int | None:
    """The version of a stage's code, or of the ingestion of `data` or `titles`; None for an unknown stage."""
    if name in INGESTED:
        return INGESTED[name]
    stage = find_stage(name)
    return None if stage is None else stage.version


def arrays_made() -> frozenset[str]:
    """The names of all arrays that stages make for fusions."""
    return frozenset(array for stage in STAGES for array in stage.makes)


def makers_of(array: str) -> list[Stage]:
    """The stages that make an array for fusions; a method has at most one of them."""
    return [stage for stage in STAGES if array in stage.makes]
