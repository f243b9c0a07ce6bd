"""The finished run that a run continues: its results, and whether the run may continue them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tslrec.config import Config
from tslrec.data import parquet
from tslrec.data.interactions import Interactions
from tslrec.pipeline.artifacts import Artifact
from tslrec.pipeline.nested import flatten
from tslrec.pipeline.recipes import config_for
from tslrec.pipeline.recorded_results import read_result
from tslrec.stages.context import Earlier
from tslrec.stages.declaration import Stage
from tslrec.stages.method_stages import stages_of
from tslrec.stages.registry import DATA_VERSION, TITLES_VERSION
from tslrec.system.errors import UserError
from tslrec.system.manifests import find_result, verify
from tslrec.system.run_files import RESULT_FILE

NAMES = {"max_len": "training.max_len", "weights": "the weights of llm"}
"""What a part of a recipe's configuration is called where it is not a key of the configuration."""

REMEDY = "give the same, or train anew without continue_from"


@dataclass(frozen=True)
class Continuation:
    """One method of a finished run, as the run that continues it sees it.

    Attributes:
        folder: of the finished run, `artifacts/runs/NAME`.
        artifacts: its results, by stage, and `data` and, of a method that reads them, `titles`.
        interactions: its data set.
    """

    folder: Path
    artifacts: Mapping[str, Artifact]
    interactions: Interactions

    @classmethod
    def of(cls, config: Config, source: Config, llm_identity: Mapping[str, Any] | None) -> Continuation:
        """Finds the run that `continue_from` names, and checks that its results can be continued.

        Args:
            config: the run's configuration.
            source: that of stage 1's backbone.
            llm_identity: tells the weights of one language model from those of another; None if none is run.

        Raises:
            UserError: if there is no such run or method, a stage cannot be continued, a setting is another one, or a
                result is missing, damaged or of another version of the code.
        """
        folder, stages = Path(str(config.continue_from)), stages_of(config)
        for stage in stages:
            if stage.continues is None:
                raise UserError(
                    f"continue_from: method={config.method.name} has the stage '{stage.name}', which cannot be "
                    "continued; train it anew without continue_from"
                )
        root, result = Path(config.artifacts), entry(folder, config)
        if folder.resolve().parent.parent != root.resolve():
            raise UserError(
                f"continue_from={folder}: not a run of artifacts={config.artifacts}; set artifacts to the folder that "
                "holds its results"
            )
        artifacts = {
            stage.name: find(root, stage.name, result["stages"][stage.name]["key"], stage.version, folder)
            for stage in stages
        }
        for stage in stages:
            own = config_for(stage, config, source)
            check_settings(stage, own, artifacts[stage.name], result["config"], llm_identity, folder)
        data_key = artifacts[stages[-1].name].manifest["inputs"]["data"]
        artifacts["data"] = find(root, "data", data_key, DATA_VERSION, folder)
        if "titles" in result:
            artifacts["titles"] = find(root, "titles", result["titles"]["key"], TITLES_VERSION, folder)
        interactions = parquet.load(artifacts["data"].folder, str(result["data"]))
        return cls(folder, artifacts, interactions)

    def seen_by(self, *, keeps_items: bool) -> Earlier:
        """The earlier run as a stage sees it.

        Args:
            keeps_items: see `Earlier`.
        """
        folders = {name: artifact.folder for name, artifact in self.artifacts.items()}
        return Earlier(folders, self.interactions, keeps_items)

    def check_items(self, config: Config, interactions: Interactions) -> None:
        """Checks what can be checked only once the grown data are read.

        Raises:
            UserError: if items are gone that a knowledge store of the method has.
        """
        if not any(stage.continues == "extend" for stage in stages_of(config)):
            return
        today = set(interactions.ids.items)
        missing = [raw_id for raw_id in self.interactions.ids.items if raw_id not in today]
        if missing:
            raise UserError(
                f"data={config.data.name}: lacks {len(missing):,} items of {self.folder}, {missing[0]} for one, and "
                f"method={config.method.name} extends its knowledge of all of them; give data with the old items, too"
            )


def entry(folder: Path, config: Config) -> Mapping[str, Any]:
    """What a run's `result.json` holds of the configured method.

    Raises:
        UserError: if it is no finished run, or had no such method.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        raise UserError(f"continue_from={folder}: no finished run; name a folder in {config.artifacts}/runs")
    results = {str(each["method"]): each for each in read_result(path)}
    if config.method.name not in results:
        raise UserError(
            f"continue_from={folder}: has no method={config.method.name}; it has {', '.join(results)}; name these only"
        )
    result = results[config.method.name]
    if set(result["stages"]) != set(config.method.stages):
        raise UserError(
            f"method.stages: {', '.join(config.method.stages)}, but {folder} has {', '.join(result['stages'])}; "
            f"{REMEDY}"
        )
    return result


def find(root: Path, stage: str, key: str, version: int, run: Path) -> Artifact:
    """A result of the run, verified.

    Raises:
        UserError: if it is missing, damaged, or of another version of the stage's code.
    """
    folder, manifest = find_result(root, stage, key, run)
    if manifest["version"] != version:
        raise UserError(
            f"{folder}: made by version {manifest['version']} of the stage, now {version}; train anew without "
            "continue_from"
        )
    verify(folder, manifest)
    return Artifact(folder, manifest, reused=True)


def check_settings(
    stage: Stage,
    config: Config,
    artifact: Artifact,
    recorded: Mapping[str, Any],
    llm_identity: Mapping[str, Any] | None,
    run: Path,
) -> None:
    """Checks that a stage has the settings of the earlier one, but for numbers of a training that trains on.

    Args:
        stage: the stage.
        config: what it runs with.
        artifact: the earlier result.
        recorded: the earlier run's configuration, for values that are defaults.
        llm_identity: see `Continuation.of`.
        run: the earlier run's folder, for messages.

    Raises:
        UserError: naming the first setting that differs, with both values.
    """
    weights = {"weights": llm_identity} if stage.runs_llm else {}
    now = dict(flatten({**stage.settings(config), **weights}))
    before = dict(flatten(artifact.manifest["config"]))
    for key in dict.fromkeys((*now, *before)):
        if may_differ(stage, key) or as_json(now.get(key)) == as_json(before.get(key)):
            continue
        raise UserError(
            f"{setting_name(stage, key)}={value_of(asdict(config), key, now)}: but {run} was trained with "
            f"{value_of(recorded, key, before)}; {REMEDY}"
        )


def may_differ(stage: Stage, key: str) -> bool:
    """Whether a run may continue another one that had another value.

    Args:
        stage: the stage.
        key: in its recipe's configuration, with dots.
    """
    section = key.split(".")[0]
    if stage.runs_llm:
        return False
    free = ("precision", "matmul_precision", "metrics", "keeps_items")
    return section in free or (section == "training" and key != "training.max_len")


def setting_name(stage: Stage, key: str) -> str:
    """What a person sets: the key in the configuration of a key in a stage's recipe."""
    if key == "precision":
        return "trainer.llm_precision"
    if key == "matmul_precision":
        return f"trainer.{key}"
    section, _, rest = key.partition(".")
    return section if rest in ("name", "target") else NAMES.get(section, key)


def value_of(config: Mapping[str, Any], key: str, recipe: Mapping[str, Any]) -> Any:
    """A setting's value for a message; where the recipe leaves a default out, from the whole configuration.

    Args:
        config: the whole configuration, as plain dicts.
        key: in the recipe's configuration, with dots.
        recipe: the recipe's configuration, flattened.
    """
    section, _, rest = key.partition(".")
    if rest in ("name", "target"):
        return config[section]["name"]
    if key in recipe:
        return recipe[key]
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return "its default" if value is None else value


def as_json(value: Any) -> Any:
    """A value in the types that JSON keeps: a manifest has lists where the code has tuples."""
    return list(value) if isinstance(value, tuple) else value
