"""Which stages, in what order, what is already there: runs a method and the methods it is compared with."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console

from tslrec import ranks
from tslrec.allocator import keep_freed_memory, use_large_pages
from tslrec.artifacts import Artifact, ArtifactStore
from tslrec.check import check, check_catalogue
from tslrec.composition import Composer, to_config
from tslrec.config import Config
from tslrec.disk import disk_fault
from tslrec.entry import stop
from tslrec.errors import UserError
from tslrec.files import write_json
from tslrec.finished import fingerprint
from tslrec.measuring import Meter
from tslrec.method_run import MethodRun, uses_llm
from tslrec.planning import print_plan_of
from tslrec.recipes import between, data_recipe, file_sha256
from tslrec.report import MethodResult, print_report
from tslrec.trial import Trial

if TYPE_CHECKING:
    from tslrec.interactions import Interactions
    from tslrec.llm.source import ResolvedSource


def run(composed: DictConfig, overrides: list[str]) -> None:
    """Runs what the command line asks for; what a person can put right ends in one line.

    Every process of a job runs this; only the first of them writes and prints.
    """
    keep_freed_memory()
    use_large_pages()
    job, first = ranks.join_job(), ranks.is_first()
    if not first:
        ranks.fall_silent()
    try:
        with Trial(first) as trial:
            config = to_config(composed)
            trial.fingerprint = fingerprint(config)
            if config.plan:
                source = source_config(config, Composer(overrides))
                print_plan_of(between(config, source), Console(quiet=not first))
                return
            store = ArtifactStore(Path(config.artifacts), job, first)
            results = run_methods(config, Composer(overrides), store, Console(quiet=not first))
            trial.result = run_folder(config, results) if results else None
    except Exception as error:
        if not first:
            ranks.let_first_speak()
        known = error if isinstance(error, UserError) else disk_fault(error)
        if known is None:
            raise
        stop(known)


def run_methods(config: Config, composer: Composer, store: ArtifactStore, console: Console) -> list[MethodResult]:
    """Runs the compared methods and then the configured one, sharing every stage that they have in common.

    Raises:
        UserError: for what a person can put right; before any training where it can be known by then.
    """
    others = [name for name in config.compare if name != config.method.name]
    choices: dict[str, Any] = {}
    planned = plan_methods(config, others, composer, choices)
    llm = resolve_llm(config, planned)
    if llm is None and any(uses_llm(each) for each in planned):
        choices["llm"] = config.fallback_llm
        config = composer.with_choices(choices)
        planned = plan_methods(config, others, composer, choices)
        llm = resolve_llm(config, planned)
    sources = [source_config(each, composer) for each in planned]
    for each in (*planned, *sources):
        check(each)

    data, interactions = ingest_data(config, store)
    print_data(interactions, config, console)
    for each in (*planned, *sources):
        if each.method.stages:
            check_catalogue(each, interactions.num_items)
    results = []
    for each, source in zip(planned, sources, strict=True):
        if each.method.stages:
            results.append(MethodRun(each, source, store, data, interactions, llm, console).run())
    if results and store.first:
        folder = record(config, results)
        print_report(results, folder, console)
    return results


def plan_methods(config: Config, others: list[str], composer: Composer, choices: Mapping[str, Any]) -> list[Config]:
    """The configurations of the compared methods, and then the configured one's."""
    return [*(composer.with_choices({**choices, "method": name}, drop=("fusion",)) for name in others), config]


def resolve_llm(config: Config, planned: list[Config]) -> ResolvedSource | None:
    """Where the language model's weights come from.

    Returns:
        None where no stage needs them, or where they cannot be had and `fallback_llm` says what takes their place.

    Raises:
        UserError: if they cannot be had.
    """
    if not any(uses_llm(each) for each in planned):
        return None
    from tslrec.llm.source import resolve

    try:
        return resolve(config.llm, Path(config.cache))
    except UserError:
        if config.fallback_llm is None or config.fallback_llm == config.llm.name:
            raise
        return None


def source_config(config: Config, composer: Composer) -> Config:
    """The configuration of stage 1: that of the run itself, or of the base run of another `source_model`."""
    if config.source_model is None or config.source_model == config.model["name"] or config.method.name == "base":
        return config
    choices = {"model": config.source_model, "method": "base", "source_model": None}
    return composer.with_choices(choices, drop=("fusion", "compare"))


def ingest_data(config: Config, store: ArtifactStore) -> tuple[Artifact, Interactions]:
    """The data set, from its artifact where the same bytes were ingested before."""
    from tslrec import interactions_file
    from tslrec.ingest import ingest
    from tslrec.sources.download import locate

    generated = config.data.path is None and config.data.download.url is None
    path = None if generated else locate(config.data, Path(config.cache))
    recipe = data_recipe(config, None if path is None else file_sha256(path))
    meter = Meter()

    def compute(folder: Path) -> dict[str, Any]:
        interactions = ingest(config.data, Path(config.cache))
        interactions_file.save(interactions, folder)
        return {"users": interactions.num_users, "items": interactions.num_items}

    artifact = store.produce(recipe, compute, meter.facts)
    return artifact, interactions_file.load(artifact.folder, config.data.name)


def print_data(interactions: Interactions, config: Config, console: Console) -> None:
    """The data set's row of the paper's Table 1."""
    from tslrec.table1 import format_row, table1_row

    console.print(format_row(config.data.title, table1_row(interactions)), highlight=False, soft_wrap=True)


def run_folder(config: Config, results: list[MethodResult]) -> Path:
    """Where a run's result is recorded."""
    last = results[-1]
    name = f"{last.method}-{last.data}-{last.model}-{last.preset}-seed{last.seed}-{last.key}"
    return Path(config.artifacts) / "runs" / name


def record(config: Config, results: list[MethodResult]) -> Path:
    """Writes what was run, and what came out, as `runs/…/result.json`; returns its folder."""
    folder = run_folder(config, results)
    folder.mkdir(parents=True, exist_ok=True)
    value: Mapping[str, Any] = {
        "command": ["python", Path(sys.argv[0]).name, *sys.argv[1:]],
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "results": [result.as_json() for result in results],
    }
    write_json(folder / "result.json", value)
    return folder
