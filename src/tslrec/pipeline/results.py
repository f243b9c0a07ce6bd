"""The results of runs: recorded as `runs/…/result.json`, and read back for tables."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tslrec.config import Config, section_defaults
from tslrec.evaluation.protocols import LIST_MARK, LIST_SIGN
from tslrec.pipeline.artifacts import Artifact
from tslrec.pipeline.choices import choice, choice_title
from tslrec.pipeline.recipes import run_key
from tslrec.stages.method_stages import member_name
from tslrec.stages.registry import find_stage, generates_lists
from tslrec.system.errors import UserError
from tslrec.system.files import write_json
from tslrec.system.manifests import KEY_LENGTH, read_manifest


@dataclass(frozen=True)
class MethodResult:
    """The result of one method on one data set.

    Attributes:
        method: the method's name.
        data: the data set's name.
        model: the backbone's name.
        source_model: the name of stage 1's backbone; the same as `model` unless `source_model` names another one.
        preset: the name of the set of numbers.
        seed: the run's.
        llm: description of the language model's weights; None if no stage runs one.
        stages: the result of each stage, in order, by stage.
        config: the resolved configuration, as plain dicts.
        earlier: the results of the run that it continues, by stage; None of a run that started anew.
        content: hex sha256 of the raw data; None of generated data.
        continues: a short hash of what tells the run that it continues from others
            (`tslrec.pipeline.identity.continued_identity`).
        titles: the artifact of the items' titles; None of a method that reads none.
        members: the results of the runs whose recommenders it reads.
    """

    method: str
    data: str
    model: str
    source_model: str
    preset: str
    seed: int
    llm: str | None
    stages: Mapping[str, Artifact]
    config: Mapping[str, Any]
    earlier: Mapping[str, Artifact] | None = None
    content: str | None = None
    continues: str | None = None
    titles: Artifact | None = None
    members: tuple[MemberResult, ...] = ()

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics of the last stage."""
        return list(self.stages.values())[-1].metrics

    @property
    def key(self) -> str:
        """Tells runs with different settings apart (`run_key`)."""
        return run_key(artifact.key for artifact in self.stages.values())

    def as_json(self) -> dict[str, Any]:
        """As `result.json` holds it. Wall times are in seconds, memory in GiB.

        `ranking` stands there only where ranks are no full ranking.
        """
        return {
            "method": self.method,
            "data": self.data,
            "model": self.model,
            "source_model": self.source_model,
            "preset": self.preset,
            "seed": self.seed,
            "llm": self.llm,
            "content": self.content,
            "continues": self.continues,
            "metrics": dict(self.metrics),
            **({} if self.titles is None else {"titles": titles_facts(self.titles)}),
            "stages": {
                name: {
                    "folder": str(artifact.folder),
                    "key": artifact.key,
                    "wall_seconds": artifact.manifest["wall_seconds"],
                    "peak_memory_gib": artifact.manifest["peak_memory_gib"],
                    "metrics": dict(artifact.metrics),
                    **facts_of(artifact.manifest),
                }
                for name, artifact in self.stages.items()
            },
            "config": dict(self.config),
            **({"ranking": LIST_MARK} if generates_lists(self.stages) else {}),
            **({"members": [member.as_json() for member in self.members]} if self.members else {}),
        }


@dataclass(frozen=True)
class MemberResult:
    """The result of a member of a run.

    Attributes:
        words: what its command line has otherwise than the run's.
        result: as it stands in the record of a run of its own.
    """

    words: str
    result: MethodResult

    def as_json(self) -> dict[str, Any]:
        """As `result.json` holds it, in the entry of the method that reads the member."""
        return {"words": self.words, **self.result.as_json()}


def titles_facts(titles: Artifact) -> dict[str, Any]:
    """Which titles a method read, and how many items have none (`tslrec.data.item_titles.TitleCounts`)."""
    sha256 = titles.manifest["config"]["sha256"]
    return {"folder": str(titles.folder), "key": titles.key, "sha256": sha256, **titles.metrics}


def facts_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage's manifest says of its result that the run's configuration does not: see `pipeline.identity`."""
    kept = {name: manifest[name] for name in ("version", "processes") if name in manifest}
    weights = manifest.get("config", {}).get("weights")
    return kept if weights is None else {**kept, "weights": weights}


Names = tuple[str, str, str, str]
"""Data set, backbone, preset, method."""


REMOVED_SETTINGS: Mapping[str, Any] = {
    "ease.rank": None,
    "fusion.gate_bias": 0.0,
    "fusion.knowledge_dropout": 0.0,
    "fusion.knowledge_scale": 1.0,
    "fusion.sides": "both",
    "fusion.whitened_size": None,
    "llm.attention": "sdpa",
    "model.padding_row": False,
    "preferences.softness": 0.0,
    "sft.reduction": "mean",
    "sft.target": "training",
}
"""Settings that no longer exist, by key, with the value that today's code has built in.

A recorded result with this value has the same settings as one without the key.
"""


NO_DIFFERENCE = frozenset({"title", "place"})
"""Last parts of keys on which no result depends."""

DATA_SETTINGS = ("reader", "min_user_interactions", "min_item_interactions")
"""Of the section `data`: what determines the data set, beside the content of its raw file."""


def read_results(root: Path, *, none_is_an_error: bool = True) -> Iterator[Mapping[str, Any]]:
    """The results of all runs below an artifacts folder, the latest last.

    Args:
        root: the artifacts folder.
        none_is_an_error: whether to refuse a folder without a finished run.

    Raises:
        UserError: if a result cannot be read, or there is none and that is an error.
    """
    paths = sorted((root / "runs").glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    if not paths and none_is_an_error:
        raise UserError(f"{root}: no finished run; name the folder that artifacts=FOLDER named")
    for path in paths:
        yield from read_result(path)


def read_result(path: Path) -> list[Mapping[str, Any]]:
    """The results of one run's methods, as its `result.json` holds them.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        results: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["results"]
        for result in results:
            names_of(result), setting(result), result["metrics"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not the result of a run ({error!r}); delete its folder") from error
    return [result if "content" in result else with_facts(result, path.absolute().parents[2]) for result in results]


def with_facts(result: Mapping[str, Any], root: Path) -> Mapping[str, Any]:
    """A result that was recorded without the facts of `facts_of`, with those that its artifacts still tell.

    Args:
        result: an entry of a `result.json`.
        root: the artifacts folder of the run.
    """
    stages, found = {}, dict(result)
    for name, stage in result.get("stages", {}).items():
        manifest = manifest_of(root / name / Path(str(stage["folder"])).name)
        stages[name] = {**stage, **facts_of(manifest)}
        if (key := manifest.get("inputs", {}).get("data")) is not None:
            for folder in (root / "data").glob(f"*-{key[:KEY_LENGTH]}"):
                if "config" in (data := manifest_of(folder)):
                    found["content"] = data["config"].get("sha256")
    return {**found, "stages": stages} if stages else result


def manifest_of(folder: Path) -> Mapping[str, Any]:
    """The manifest of a result; an empty one if it is gone or damaged, which `tslrec status` tells of."""
    try:
        return read_manifest(folder)
    except UserError:
        return {}


def names_of(result: Mapping[str, Any]) -> Names:
    """The names under which tables list a result; the backbone's includes the source model's if it is another one."""
    model, source = str(result["model"]), str(result["source_model"])
    return str(result["data"]), model if source == model else f"{model} ({source})", result["preset"], result["method"]


def setting(result: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the stages of a run read, by their whole key: `training.batch_size` and the like.

    Among them are those that determine the data set, but for the content of its file (`tslrec.pipeline.identity`), and
    the precision of the stages. Of a `_target_` only the last part counts, so that code may move. A setting that was
    added after the run has its default. A run that continues another one names it.
    """
    config = result["config"]
    stages = config["method"]["stages"] if "method" in config else choice("method", result["method"])["stages"]
    read = dict.fromkeys(name for stage in stages for name in sections_read(stage, config))
    sections = {name: with_defaults(name, config.get(name, section_defaults(name))) for name in read}
    sections["data"] = data_settings(config)
    sections["trainer"] = precisions(stages, config)
    found = {
        key: class_name(value) if key.endswith("._target_") else value
        for key, value in flatten(sections)
        if key.split(".")[-1] not in NO_DIFFERENCE and not (key in REMOVED_SETTINGS and value == REMOVED_SETTINGS[key])
    }
    if config.get("continue_from") is not None:
        found["continue_from"] = run_without_seed(Path(config["continue_from"]).name)
    found.update(of_members(result, setting))
    return found


def members_of(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The entries of a result's members; none of a method that reads none."""
    found: Sequence[Mapping[str, Any]] = result.get("members") or ()
    return found


def of_members(
    result: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """What tells a result's members from others, by names such as `member-1.model.num_layers`.

    A member's seed counts from the run's: runs of several seeds have the same members where each has its own seed, or
    one that is as far from the run's. The data set is the run's.

    Args:
        result: an entry of a `result.json`.
        read: gives what tells a result without its seed from others, by name.
    """
    for number, member in enumerate(members_of(result), 1):
        prefix = member_name(number)
        yield f"{prefix}.method", member["method"]
        yield f"{prefix}.seed", member["seed"] - result["seed"]
        for name, value in read(member).items():
            if not name.startswith("data."):
                yield f"{prefix}.{name}", value


def data_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a recorded configuration that determine the data set: its reader and its filters."""
    recorded = config.get("data", {})
    data = {**(section_defaults("data") or {}), **recorded}
    found = {name: data[name] for name in DATA_SETTINGS}
    if not isinstance(found["reader"], Mapping):
        return {name: value for name, value in found.items() if name != "reader"}
    listed = choice("data", str(recorded.get("name"))).get("reader", {})
    if class_name(listed.get("_target_")) == class_name(found["reader"].get("_target_")):
        found["reader"] = filled(found["reader"], listed)
    return found


def precisions(stages: Sequence[str], config: Mapping[str, Any]) -> dict[str, Any]:
    """The precisions in which the stages of a recorded configuration compute, by their keys in `trainer`.

    Args:
        stages: the names of the method's stages.
        config: the recorded configuration.
    """
    trainer = {**(section_defaults("trainer") or {}), **config.get("trainer", {})}
    declared = [stage for name in stages if (stage := find_stage(name)) is not None]
    found = {}
    if any("training" in stage.sections for stage in declared):
        found["precision"] = trainer["precision"]
    if any(stage.runs_llm for stage in declared):
        found["llm_precision"] = trainer["llm_precision"]
    # Of products in float32: it counts on GPUs alone.
    if trainer["accelerator"] in ("gpu", "cuda") and trainer.get("matmul_precision", "highest") != "highest":
        found["matmul_precision"] = trainer["matmul_precision"]
    return found


def class_name(target: Any) -> str:
    """The last part of a `_target_`: code may move, but another class or function gives other results."""
    return str(target).rpartition(".")[2]


def run_without_seed(name: str) -> str:
    """The name of a run (`run_folder`) without seed and key, for runs of several seeds that each continue their own."""
    return re.sub(r"-seed\d+-[0-9a-f]+$", "", name)


def method_title(method: str, config: Mapping[str, Any]) -> str:
    """The title of a method as its run's configuration states it, else as `configs/method` does, else its name.

    Behind it `LIST_SIGN` where the method's ranks are places in generated lists.
    """
    section = config.get("method", {})
    title = choice_title("method", method) if section.get("title") is None else str(section["title"])
    return f"{title} {LIST_SIGN}" if generates_lists(section.get("stages") or ()) else title


def sections_read(stage: str, config: Mapping[str, Any]) -> Sequence[str]:
    """The sections of the configuration that a stage reads; all recorded ones for a stage that is unknown today."""
    found = find_stage(stage)
    if found is not None:
        return found.sections
    return [name for name, section in config.items() if isinstance(section, Mapping)]


def with_defaults(name: str, section: Any) -> Any:
    """A recorded section with its absent settings filled in, from its dataclass or from the YAML file of its choice.

    Args:
        name: the section's name.
        section: its recorded value.
    """
    if not isinstance(section, Mapping):
        return section
    defaults = section_defaults(name)
    return filled(section, choice(name, str(section.get("name"))) if defaults is None else defaults)


def filled(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`section` over `defaults`, nested mappings entry by entry."""
    found = dict(defaults)
    for name, value in section.items():
        if isinstance(value, Mapping) and isinstance(default := defaults.get(name), Mapping):
            value = filled(value, default)
        found[name] = value
    return found


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, with their keys joined by dots."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def run_folder(config: Config, results: list[MethodResult]) -> Path:
    """The folder in which a run's result is recorded, named after its last method."""
    last = results[-1]
    name = f"{last.method}-{last.data}-{last.model}-{last.preset}-seed{last.seed}-{last.key}"
    return Path(config.artifacts) / "runs" / name


def record(config: Config, results: list[MethodResult]) -> Path:
    """Writes the command line, the number of threads and the results to `result.json`; returns its folder."""
    folder = run_folder(config, results)
    folder.mkdir(parents=True, exist_ok=True)
    value: Mapping[str, Any] = {
        "command": ["python", Path(sys.argv[0]).name, *sys.argv[1:]],
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "results": [result.as_json() for result in results],
    }
    write_json(folder / "result.json", value)
    return folder
