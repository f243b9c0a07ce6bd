"""Runs a method, and the methods that it is compared with, on one data set."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.config import Config
from tslrec.pipeline.artifacts import Artifact, ArtifactStore
from tslrec.pipeline.check import check
from tslrec.pipeline.check_catalogue import check_interactions
from tslrec.pipeline.composition import Composer
from tslrec.pipeline.method_run import MethodRun
from tslrec.pipeline.recipes import data_recipe
from tslrec.pipeline.results import MethodResult
from tslrec.pipeline.titles import ingest_titles
from tslrec.stages.registry import reads_titles, runs_llm, stages_of
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from tslrec.data.interactions import Interactions
    from tslrec.llm.weights_source import ResolvedSource
    from tslrec.pipeline.continuation import Continuation


def run_methods(config: Config, composer: Composer, store: ArtifactStore) -> list[MethodResult]:
    """Runs the methods of `compare`, then the configured one; stages that several methods share are computed once.

    Args:
        config: the configured run.
        composer: composes the compared runs from the same command line.
        store: finds and publishes the results of stages.

    Returns:
        The results in that order; none of a method without stages.

    Raises:
        UserError: for what a person can put right; before any training, if it can be known by then.
        StoppedError: if a signal asked the run to end; the same command resumes it.
    """
    others = [name for name in config.compare if name != config.method.name]
    choices: dict[str, Any] = {}
    planned = method_configs(config, others, composer, choices)
    llm = resolve_llm(config, planned)
    if llm is None and any(runs_llm(each) for each in planned):
        choices["llm"] = config.fallback_llm
        config = composer.with_choices(choices)
        planned = method_configs(config, others, composer, choices)
        llm = resolve_llm(config, planned)
    sources = [source_config(each, composer) for each in planned]
    for each in (*planned, *sources):
        check(each, llm)
    continued = [continuation(*each, llm) for each in zip(planned, sources, strict=True)]

    data, interactions = ingest_data(config, store)
    from tslrec.data.statistics import format_row, table1_row

    log.info(format_row(config.data.title, table1_row(interactions)))
    for each in (*planned, *sources):
        if each.method.stages:
            check_interactions(each, interactions)
    titles = ingest_titles(config, store, data, interactions) if any(map(reads_titles, planned)) else None
    for each, earlier in zip(planned, continued, strict=True):
        if earlier is not None:
            earlier.check_items(each, interactions)
    results = []
    for each, source, earlier in zip(planned, sources, continued, strict=True):
        if each.method.stages:
            own_titles = titles if reads_titles(each) else None
            result = MethodRun(each, source, store, data, interactions, llm, earlier, own_titles).run()
            results.append(
                replace(result, content=data.manifest["config"]["sha256"], continues=continued_settings(each))
            )
    return results


def continued_settings(config: Config) -> str | None:
    """What tells the run that a method continues from others of its name; None of a method that starts anew."""
    if config.continue_from is None:
        return None
    from tslrec.pipeline.identity import continued_identity

    return continued_identity(config.continue_from, config.method.name)


def continuation(config: Config, source: Config, llm: ResolvedSource | None) -> Continuation | None:
    """The finished run that a method of the run continues; None if it starts anew, or has no stages.

    Args:
        config: the method's configuration.
        source: that of its stage 1.
        llm: the language model's weights.

    Raises:
        UserError: see `Continuation.of`.
    """
    if config.continue_from is None or not config.method.stages:
        return None
    from tslrec.pipeline.continuation import Continuation

    return Continuation.of(config, source, None if llm is None else llm.identity)


def method_configs(config: Config, others: list[str], composer: Composer, choices: Mapping[str, Any]) -> list[Config]:
    """The configurations of all methods to run: the compared ones, then the configured one.

    All have the configured run's backbone, also where it, or a compared method, brings a default of its own.

    Args:
        config: the configured run.
        others: names of the methods to compare with.
        composer: composes their configurations.
        choices: what is changed in all of them, such as the language model.
    """
    same = Composer([*composer.overrides, f"model={config.model['name']}"], composer.config_name)
    found = []
    for name in others:
        changed = {**choices, "method": name}
        other = composer.with_choices(changed, drop=("fusion",))
        differs = other.model["name"] != config.model["name"]
        found.append(same.with_choices(changed, drop=("fusion",)) if differs else other)
    return [*found, config]


def resolve_llm(config: Config, planned: list[Config]) -> ResolvedSource | None:
    """Finds the weights of the language model.

    Args:
        config: the configured run, whose language model all methods share.
        planned: the configurations of all methods to run.

    Returns:
        None if no stage needs them, or if they cannot be had and `fallback_llm` names another language model.

    Raises:
        UserError: if they cannot be had, and there is no fallback.
    """
    if not any(runs_llm(each) for each in planned):
        return None
    from tslrec.llm.weights_source import resolve

    try:
        return resolve(config.llm, Path(config.cache))
    except UserError:
        if config.fallback_llm is None or config.fallback_llm == config.llm.name:
            raise
        return None


def source_config(config: Config, composer: Composer) -> Config:
    """The configuration of stage 1: the run's own, or that of the base run of another `source_model`.

    A method whose stages all belong to the source trains no second backbone, so it ignores `source_model`.
    """
    one_backbone = all(stage.settings_of == "source" for stage in stages_of(config))
    if config.source_model is None or config.source_model == config.model["name"] or one_backbone:
        return config
    choices = {"model": config.source_model, "method": "base", "source_model": None}
    return composer.with_choices(choices, drop=("fusion", "compare"))


def ingest_data(config: Config, store: ArtifactStore) -> tuple[Artifact, Interactions]:
    """Ingests the data set, or reuses its artifact if the same bytes were ingested the same way before.

    Raises:
        UserError: if the raw file is missing, has another sha256 than it must, or cannot be read.
    """
    from tslrec.data import parquet
    from tslrec.data.download import locate, raw_sha256
    from tslrec.data.ingest import ingest_counted

    generated = config.data.path is None and config.data.download.url is None
    path = None if generated else locate(config.data, Path(config.cache))
    recipe = data_recipe(config, None if path is None else raw_sha256(path))
    meter = Meter()

    def compute(folder: Path) -> dict[str, Any]:
        interactions, rows = ingest_counted(config.data, Path(config.cache))
        parquet.save(interactions, folder)
        return {"users": interactions.num_users, "items": interactions.num_items, "reading": rows}

    artifact = store.produce(recipe, compute, meter.facts)
    return artifact, parquet.load(artifact.folder, config.data.name)
