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
from tslrec.pipeline.check_members import check_members, check_named, same_run
from tslrec.pipeline.composition import Composer
from tslrec.pipeline.members import PlannedMember, of_member, planned_members
from tslrec.pipeline.method_run import MemberRun, MethodRun
from tslrec.pipeline.planning import resolve_llm, source_config
from tslrec.pipeline.recipes import data_recipe
from tslrec.pipeline.results import MethodResult
from tslrec.pipeline.titles import ingest_titles
from tslrec.stages.method_stages import reads_members, reads_titles, runs_llm
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from tslrec.data.interactions import Interactions
    from tslrec.llm.weights_source import ResolvedSource
    from tslrec.pipeline.continuation import Continuation


def run_methods(config: Config, composer: Composer, store: ArtifactStore) -> list[MethodResult]:
    """Runs the methods of `compare`, then the configured one; stages that several methods share are computed once.

    A method that reads members runs their stages before its own.

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
    check_named(planned)
    llm = resolve_llm(config, planned)
    if llm is None and any(runs_llm(each) for each in planned):
        choices["llm"] = config.fallback_llm
        config = composer.with_choices(choices)
        planned = method_configs(config, others, composer, choices)
        llm = resolve_llm(config, planned)
    sources = [source_config(each, composer) for each in planned]
    for each in distinct(*planned, *sources):
        check(each, llm)
    members = planned_members(config, composer, llm) if any(map(reads_members, planned)) else ()
    check_all(planned, members)
    continued = [continuation(*each, llm) for each in zip(planned, sources, strict=True)]

    data, interactions = ingest_data(config, store)
    from tslrec.data.statistics import format_row, table1_row

    log.info(format_row(config.data.title, table1_row(interactions)))
    of_members = [each.config for each in members]
    for each in distinct(*planned, *sources, *of_members, *(member.source for member in members)):
        if each.method.stages:
            check_interactions(each, interactions)
    with_titles = any(map(reads_titles, (*planned, *of_members)))
    titles = ingest_titles(config, store, data, interactions) if with_titles else None
    runs = [
        MemberRun(each.words, MethodRun(each.config, each.source, store, data, interactions, each.llm, None, titles))
        for each in members
    ]
    refuse_same_runs(runs)
    for each, earlier in zip(planned, continued, strict=True):
        if earlier is not None:
            earlier.check_items(each, interactions)
    results = []
    for each, source, earlier in zip(planned, sources, continued, strict=True):
        if each.method.stages:
            own_members = runs if reads_members(each) else ()
            run = MethodRun(each, source, store, data, interactions, llm, earlier, titles, tuple(own_members))
            results.append(replace(run.run(), continues=continued_settings(each)))
    return results


def distinct(*configs: Config) -> list[Config]:
    """Configurations, each once: where no other backbone makes stage 1, a run's source is the run itself."""
    return list({id(each): each for each in configs}.values())


def check_all(planned: list[Config], members: tuple[PlannedMember, ...]) -> None:
    """Checks the members of a run, each as the run that it is, and whether its methods can read them.

    Raises:
        UserError: naming the member and what is wrong with it.
    """
    for member in members:
        try:
            for each in distinct(member.config, member.source):
                check(each, member.llm)
        except UserError as error:
            raise of_member(member.words, error) from error
    for config in filter(reads_members, planned):
        check_members(config, members)


def refuse_same_runs(runs: list[MemberRun]) -> None:
    """Refuses members that have the same result, although their settings differ.

    Raises:
        UserError: naming two such members.
    """
    words: dict[str, str] = {}
    for member in runs:
        if (key := member.key) in words:
            raise same_run(words[key], member.words)
        words[key] = member.words


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
