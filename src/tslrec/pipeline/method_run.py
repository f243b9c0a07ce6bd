"""One method on one data set: its stages in order, each reused or computed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.config import Config
from tslrec.llm.encoder_decoder.source import describe_t5
from tslrec.pipeline.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.pipeline.recipes import config_for, run_key, stage_recipe, stage_seed
from tslrec.pipeline.results import MemberResult, MethodResult
from tslrec.pipeline.trackers.base import RunIdentity, Tracker, open_tracker
from tslrec.stages.declaration import MEMBERS, Stage
from tslrec.stages.members import Member
from tslrec.stages.method_stages import member_name, reads_titles, runs_llm, runs_t5, stages_of
from tslrec.stages.registry import INGESTED
from tslrec.system import interruptions, processes
from tslrec.system.errors import StoppedError
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from tslrec.data.interactions import Interactions
    from tslrec.llm.weights_source import ResolvedSource
    from tslrec.pipeline.continuation import Continuation


@dataclass
class MethodRun:
    """One method on one data set.

    Attributes:
        config: the run's configuration.
        source: the configuration of stage 1's backbone; `config` itself where `source_model` names no other one.
        store: finds and publishes the results of stages.
        data: the ingested data set's artifact.
        interactions: the data set.
        llm: where the language model's weights come from; None if no compared method runs one.
        continuation: the finished run that it continues; None if it starts anew.
        titles: the artifact of the items' titles; None if neither this method nor another one of the run reads them.
        members: the runs whose recommenders it reads; their stages run first.
        artifacts: the results so far, by stage, and `data` and `titles`.
    """

    config: Config
    source: Config
    store: ArtifactStore
    data: Artifact
    interactions: Interactions
    llm: ResolvedSource | None
    continuation: Continuation | None = None
    titles: Artifact | None = None
    members: tuple[MemberRun, ...] = ()
    artifacts: dict[str, Artifact] = field(default_factory=dict)

    def run(self) -> MethodResult:
        """Runs the method's stages in order, after those of its members, and reports each result to the tracker.

        A member reports to the tracker as the run that it is, like a method that is compared.

        Raises:
            UserError: for what a person can put right: a damaged artifact, a full disk, a value that is not finite, a
                tracker that cannot start.
            StoppedError: if a signal asked the run to end; the same command resumes it.
        """
        self.artifacts.update(self.ingested())
        recipes = self.recipes()
        self.store.need(self.all_keys())
        members = tuple(MemberResult(each.words, each.run.run()) for each in self.members)
        with self.tracker(run_key(recipe.key for recipe in recipes.values())) as tracker:
            for stage in stages_of(self.config):
                self.artifacts[stage.name] = self.run_stage(stage, recipes[stage.name], tracker)
                tracker.log_artifact(stage.name, self.artifacts[stage.name])
            result = self.result(members)
            tracker.log_result(result.metrics)
        return result

    def all_keys(self) -> list[str]:
        """The keys of all results that the run needs, those of its members among them."""
        of_members = [key for member in self.members for key in member.run.all_keys()]
        return [*of_members, *(recipe.key for recipe in self.recipes().values())]

    def ingested(self) -> dict[str, Artifact]:
        """What the stages read and no stage makes: `data`, and `titles` where one reads them."""
        read = None if self.titles is None or not reads_titles(self.config) else self.titles
        return {"data": self.data} if read is None else {"data": self.data, "titles": read}

    def tracker(self, key: str) -> Tracker:
        """The configured tracker on rank 0; on the other ranks one that tracks nothing.

        Args:
            key: the run's (`tslrec.pipeline.recipes.run_key`).
        """
        if not self.store.first:
            return Tracker()
        return open_tracker(self.config, RunIdentity.of(self.config, key), Path(self.config.artifacts))

    def result(self, members: tuple[MemberResult, ...] = ()) -> MethodResult:
        """The run's result, once all stages are finished.

        Args:
            members: the results of its members.
        """
        return MethodResult(
            method=self.config.method.name,
            data=self.config.data.name,
            model=str(self.config.model["name"]),
            source_model=str(self.source.model["name"]),
            preset=self.config.preset,
            seed=self.config.seed,
            llm=self.language_model(),
            stages={name: artifact for name, artifact in self.artifacts.items() if name not in INGESTED},
            config=asdict(self.config),
            earlier=None if self.continuation is None else self.continuation.artifacts,
            content=self.data.manifest["config"]["sha256"],
            titles=self.ingested().get("titles"),
            members=members,
        )

    def language_model(self) -> str | None:
        """What the weights of the language model are; None if no stage runs one."""
        if self.llm is not None and runs_llm(self.config):
            return self.llm.description
        return describe_t5(self.config.t5) if runs_t5(self.config) else None

    def recipes(self) -> dict[str, Recipe]:
        """What determines each stage's result, by stage; known before any stage has run."""
        keys, found = {name: artifact.key for name, artifact in self.ingested().items()}, {}
        keys.update({member_name(number): member.key for number, member in enumerate(self.members, 1)})
        for stage in stages_of(self.config):
            found[stage.name] = self.recipe(stage, keys)
            keys[stage.name] = found[stage.name].key
        return found

    def recipe(self, stage: Stage, keys: Mapping[str, str]) -> Recipe:
        """What determines a stage's result.

        Args:
            stage: the stage.
            keys: see `stage_recipe`.
        """
        earlier = None if self.continuation is None else self.continuation.artifacts[stage.name]
        if earlier is not None and stage.continues == "reuse":
            return Recipe.of(earlier.manifest)
        return stage_recipe(
            config_for(stage, self.config, self.source),
            stage,
            keys=keys,
            llm_identity=None if self.llm is None else self.llm.identity,
            earlier=None if earlier is None else earlier.key,
            keeps_items=earlier is not None and self.is_source(stage),
        )

    def is_source(self, stage: Stage) -> bool:
        """Whether a stage trains a recommender whose item embeddings later stages of the method read."""
        return stage.restored_by is not None and stage.name != self.config.method.stages[-1]

    def run_stage(self, stage: Stage, recipe: Recipe, tracker: Tracker) -> Artifact:
        """Reuses a stage's result, or computes it.

        Raises:
            UserError: see `run`.
        """
        if self.continuation is not None and stage.continues == "reuse":
            artifact = self.continuation.artifacts[stage.name]
            log.info(f"{self.config.method.name} · {stage.name}: kept, {artifact.folder}")
            return artifact
        config = config_for(stage, self.config, self.source)
        meter = Meter()
        checkpoints = Checkpoints(self.store.checkpoints(recipe))
        try:
            artifact = self.store.produce(
                recipe,
                lambda folder: self.compute(stage, config, folder, tracker, checkpoints, meter),
                lambda: {
                    **meter.facts(),
                    "processes": processes.number_of_processes() if stage.together else 1,
                    "trainer": trainer_facts(stage, config),
                    **self.base_model_facts(stage),
                },
                together=stage.together,
            )
        except interruptions.Interruption as stop:
            if not self.store.first:
                raise
            name = interruptions.name_of(stop.signal)
            raise StoppedError(
                f"{self.config.method.name} {stage.name}: stopped by {name}; the same command {checkpoints.future}",
                stop.signal,
            ) from None
        how = "reused" if artifact.reused else f"computed in {artifact.manifest['wall_seconds']:.1f} s"
        log.info(f"{self.config.method.name} · {stage.name}: {how}, {artifact.folder}")
        return artifact

    def base_model_facts(self, stage: Stage) -> dict[str, Any]:
        """What the manifest of a stage that runs the language model records of the frozen weights."""
        if self.llm is None or not stage.runs_llm:
            return {}
        from tslrec.llm.loading import describe_weights

        return {"base_model": describe_weights(self.llm)}

    def compute(
        self,
        stage: Stage,
        config: Config,
        folder: Path,
        tracker: Tracker,
        checkpoints: Checkpoints,
        meter: Meter,
    ) -> dict[str, Any]:
        """Seeds every random generator, and runs a stage.

        Args:
            stage: the stage.
            config: what it runs with (`config_for`).
            folder: where it writes.
            tracker: gives the loggers of its curves.
            checkpoints: its own.
            meter: its own.

        Returns:
            The stage's metrics.
        """
        import lightning

        from tslrec.stages.context import StageContext
        from tslrec.training.trainer import StageTrainers

        seed = stage_seed(config.seed, stage.name)
        lightning.seed_everything(seed, verbose=False)
        name = f"{self.config.method.name} {stage.name}"
        context = StageContext(
            config=config,
            interactions=self.interactions,
            seed=seed,
            folder=folder,
            inputs={name: artifact.folder for name, artifact in self.artifacts.items()},
            make_trainer=StageTrainers(
                config.trainer, name, folder, tracker.loggers(stage.name), checkpoints=checkpoints, meter=meter
            ),
            checkpoints=checkpoints,
            meter=meter,
            members=tuple(each.as_read() for each in self.members) if MEMBERS in stage.reads else (),
            earlier=None if self.continuation is None else self.continuation.seen_by(keeps_items=self.is_source(stage)),
        )
        return stage.run(context)


@dataclass(frozen=True)
class MemberRun:
    """A member of a run: a run of its own.

    Attributes:
        words: what its command line has otherwise than the run's.
        run: its stages.
    """

    words: str
    run: MethodRun

    @property
    def key(self) -> str:
        """The key of its recommender; known before any stage has run."""
        return list(self.run.recipes().values())[-1].key

    def as_read(self) -> Member:
        """The finished member, as a stage reads it."""
        folders = {name: artifact.folder for name, artifact in self.run.artifacts.items()}
        last = self.run.config.method.stages[-1]
        return Member(self.words, self.run.config, last, folders[last], folders)


def trainer_facts(stage: Stage, config: Config) -> dict[str, Any]:
    """On what kind of device and in which precision a stage ran, for its manifest.

    Not all of it is in the stage's key: a result that was computed on a CPU is used on a GPU, and the other way round.
    """
    trainer = config.trainer
    return {
        "name": trainer.name,
        "accelerator": trainer.accelerator,
        "precision": trainer.llm_precision if stage.runs_llm else trainer.precision,
        "matmul_precision": trainer.matmul_precision if trainer.on_gpu else "highest",
        "deterministic": trainer.deterministic,
    }
