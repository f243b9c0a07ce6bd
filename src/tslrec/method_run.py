"""One method on one data set: its stages in order, each reused or computed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tslrec import ranks
from tslrec.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.check import LLM_STAGES
from tslrec.checkpoints import Checkpoints
from tslrec.config import Config
from tslrec.dashboard import Dashboard, RunIdentity, open_dashboard
from tslrec.measuring import Meter
from tslrec.recipes import between, run_key, stage_recipe, stage_seed
from tslrec.report import MethodResult

if TYPE_CHECKING:
    from tslrec.interactions import Interactions
    from tslrec.llm.source import ResolvedSource


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
        """Whose settings a stage reads: the source model's, the run's, or both."""
        match stage:
            case "backbone":
                return self.source
            case "fusion":
                return self.config
            case _:
                return between(self.config, self.source)

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


def uses_llm(config: Config) -> bool:
    """Whether a stage of the method runs the language model."""
    return not LLM_STAGES.isdisjoint(config.method.stages)
