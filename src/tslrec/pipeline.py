"""Which stages, in what order, what is already there: runs a method and the methods it is compared with."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console

from tslrec import ranks
from tslrec.allocator import keep_freed_memory, use_large_pages
from tslrec.artifacts import Artifact, ArtifactStore, Recipe, write_json
from tslrec.check import check, check_catalogue
from tslrec.checkpoints import Checkpoints
from tslrec.composition import Composer, to_config
from tslrec.config import Config
from tslrec.dashboard import Dashboard, RunIdentity, open_dashboard
from tslrec.disk import disk_fault
from tslrec.entry import stop
from tslrec.errors import UserError
from tslrec.finished import fingerprint
from tslrec.measuring import Meter
from tslrec.planning import print_plan_of
from tslrec.recipes import data_recipe, file_sha256, run_key, stage_recipe, stage_seed
from tslrec.report import MethodResult, print_report
from tslrec.trial import Trial

if TYPE_CHECKING:
    from tslrec.interactions import Interactions
    from tslrec.llm.source import ResolvedSource

LLM_STAGES = frozenset({"sft", "augment", "e4srec"})


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
                print_plan_of(config, Console(quiet=not first))
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


def uses_llm(config: Config) -> bool:
    """Whether a stage of the method runs the language model."""
    return not {"sft", "untuned_llm", "e4srec"}.isdisjoint(config.method.stages)


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


@dataclass
class MethodRun:
    """One method on one data set: its stages in order, each reused or computed."""

    config: Config
    source: Config
    store: ArtifactStore
    data: Artifact
    interactions: Interactions
    llm: ResolvedSource | None
    console: Console
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    def run(self) -> MethodResult:
        self.artifacts["data"] = self.data
        recipes = self.recipes()
        with self.dashboard(run_key(recipe.key for recipe in recipes.values())) as dashboard:
            for stage, recipe in recipes.items():
                self.artifacts[stage] = self.run_stage(stage, recipe, dashboard)
                dashboard.produced(stage, self.artifacts[stage])
            result = self.result()
            dashboard.finish(result.metrics)
        return result

    def dashboard(self, key: str) -> Dashboard:
        """What the configuration asks for, in the job's first process."""
        if not self.store.first:
            return Dashboard()
        folder = Path(self.config.artifacts)
        # Weights & Biases makes its own folder, of this name.
        folder = folder if self.config.logger.kind == "wandb" else folder / self.config.logger.kind
        return open_dashboard(self.config, RunIdentity.of(self.config, key), folder)

    def result(self) -> MethodResult:
        """What the finished stages say."""
        return MethodResult(
            method=self.config.method.name,
            data=self.config.data.name,
            model=str(self.config.model["name"]),
            source_model=str(self.source.model["name"]),
            preset=self.config.preset,
            seed=self.config.seed,
            llm=self.llm.description if self.llm is not None and uses_llm(self.config) else None,
            stages={name: artifact for name, artifact in self.artifacts.items() if name != "data"},
            config=asdict(self.config),
        )

    def recipes(self) -> dict[str, Recipe]:
        """What determines each stage's result, known before any of them is there."""
        keys, found = {"data": self.data.key}, {}
        for stage in self.config.method.stages:
            found[stage] = stage_recipe(
                self.config_of(stage),
                stage,
                version=module_of(stage).VERSION,
                keys=keys,
                llm_identity=None if self.llm is None else self.llm.identity,
            )
            keys[stage] = found[stage].key
        return found

    def run_stage(self, stage: str, recipe: Recipe, dashboard: Dashboard) -> Artifact:
        config, module = self.config_of(stage), module_of(stage)
        meter = Meter()
        checkpoints = Checkpoints(self.store.checkpoints(recipe), self.tell)
        artifact = self.store.produce(
            recipe,
            lambda folder: self.compute(stage, module.run, config, folder, dashboard, checkpoints, meter),
            lambda: {
                **meter.facts(),
                "processes": ranks.number_of_processes() if module.TOGETHER else 1,
                **self.frozen_weights(stage),
            },
            together=module.TOGETHER,
        )
        said = "reused" if artifact.reused else f"computed in {artifact.manifest['wall_seconds']:.1f} s"
        self.tell(f"{self.config.method.name} · {stage}: {said}, {artifact.folder}")
        return artifact

    def frozen_weights(self, stage: str) -> dict[str, Any]:
        """What the manifest of a stage that runs the language model says of its base."""
        if self.llm is None or stage not in LLM_STAGES:
            return {}
        from tslrec.llm.loading import base_model

        return {"base_model": base_model(self.llm)}

    def tell(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)

    def config_of(self, stage: str) -> Config:
        """Stages before the fusion speak of the source model, but keep this run's language model and K."""
        if stage == "fusion":
            return self.config
        if stage == "backbone" or self.source is self.config:
            return self.source
        from dataclasses import replace

        return replace(self.config, model=self.source.model)

    def compute(
        self,
        stage: str,
        run_stage: Callable[..., dict[str, Any]],
        config: Config,
        folder: Path,
        dashboard: Dashboard,
        checkpoints: Checkpoints,
        meter: Meter,
    ) -> dict[str, Any]:
        import lightning

        from tslrec.stages.context import StageContext
        from tslrec.trainers import StageTrainers

        seed = stage_seed(config.seed, stage)
        lightning.seed_everything(seed, verbose=False)
        name = f"{self.config.method.name} {stage}"
        context = StageContext(
            config=config,
            interactions=self.interactions,
            seed=seed,
            folder=folder,
            inputs={name: artifact.folder for name, artifact in self.artifacts.items()},
            make_trainer=StageTrainers(
                config.trainer, name, folder, dashboard.loggers(stage), checkpoints=checkpoints, meter=meter
            ),
            checkpoints=checkpoints,
            meter=meter,
            tell=self.tell,
        )
        return run_stage(context)


def module_of(stage: str) -> Any:
    """The code of a stage."""
    return importlib.import_module(f"tslrec.stages.{stage}")


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
