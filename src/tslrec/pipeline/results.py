"""The results of a run's methods, and their record in `runs/…/result.json`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tslrec.config import Config
from tslrec.evaluation.protocols import LIST_MARK
from tslrec.pipeline.artifacts import Artifact
from tslrec.pipeline.recipes import run_key
from tslrec.pipeline.recorded_results import facts_of, read_result
from tslrec.pipeline.unfinished import UNFINISHED, gate
from tslrec.stages.registry import generates_lists
from tslrec.system.errors import UserError
from tslrec.system.files import write_json
from tslrec.system.run_files import RESULT_FILE, RUNS


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


def run_folder(config: Config, results: list[MethodResult]) -> Path:
    """The folder in which a run's result is recorded, named after its last method."""
    last = results[-1]
    name = f"{last.method}-{last.data}-{last.model}-{last.preset}-seed{last.seed}-{last.key}"
    return Path(config.artifacts) / RUNS / name


def record(config: Config, results: list[MethodResult]) -> Path:
    """Writes the command line, the number of threads and the results to `result.json`; returns its folder.

    The folder is named after the last method alone, whose run may have been compared with other methods before. The
    results of these stay, in front of the new ones: the last one is the run's own.
    """
    folder, begun = run_folder(config, results), Path(config.artifacts) / UNFINISHED
    for each in (folder, begun):
        each.mkdir(parents=True, exist_ok=True)
    # Another run that has the same last method may be reading and writing the same file now.
    with gate(begun):
        value: Mapping[str, Any] = {
            "command": ["python", Path(sys.argv[0]).name, *sys.argv[1:]],
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "results": [*kept_results(folder / RESULT_FILE, results), *(result.as_json() for result in results)],
        }
        write_json(folder / RESULT_FILE, value)
    return folder


def kept_results(path: Path, results: Sequence[MethodResult]) -> list[Mapping[str, Any]]:
    """The recorded results of a `result.json` that are of other methods than the new ones; none if it is unreadable."""
    new = {result.method for result in results}
    try:
        recorded = read_result(path) if path.is_file() else []
    except UserError:
        return []
    return [each for each in recorded if each["method"] not in new]
