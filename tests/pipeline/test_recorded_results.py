"""What `result.json` holds once runs that have the same last method, and so the same folder, have ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tslrec.config import Config
from tslrec.pipeline.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.pipeline.composition import compose_overrides
from tslrec.pipeline.inventory import inventory, left_over
from tslrec.pipeline.recorded_results import read_result, read_results
from tslrec.pipeline.results import MethodResult, record
from tslrec.reports.summary import summarise
from tslrec.stages.registry import code_version

FACTS = {"created": "2026-01-02T03:04:05+00:00", "wall_seconds": 12.0, "peak_memory_gib": 0.5}


def config_of(root: Path, method: str) -> Config:
    return compose_overrides([f"method={method}", "data=synthetic", "llm=tiny", f"artifacts={root}"])


def artifact(root: Path, stage: str, value: float) -> Artifact:
    """The result of a stage, other for another value."""

    def compute(folder: Path) -> dict[str, Any]:
        return {"test/masked/HR@10": value}

    recipe = Recipe(stage, "synthetic", {"value": value}, version=code_version(stage) or 1)
    return ArtifactStore(root).produce(recipe, compute, lambda: dict(FACTS))


def result(root: Path, method: str, value: float = 0.5) -> MethodResult:
    config = config_of(root, method)
    stage = {"base": "backbone", "ci": "fusion", "e4srec": "e4srec"}[method]
    stages = {stage: artifact(root, stage, value)}
    recorded = {"method": {"name": method, "stages": [stage]}, "data": {}}
    return MethodResult(
        method, config.data.name, "sasrec", "sasrec", config.preset, 0, None, stages, recorded, content="0" * 64
    )


def methods(folder: Path) -> list[str]:
    return [each["method"] for each in read_result(folder / "result.json")]


def test_a_run_keeps_the_compared_methods_of_earlier_ones_in_front_of_its_own(tmp_path: Path) -> None:
    config, own = config_of(tmp_path, "ci"), result(tmp_path, "ci")
    folder = record(config, [result(tmp_path, "base"), own])
    assert methods(folder) == ["base", "ci"]
    assert record(config, [own]) == folder
    assert methods(folder) == ["base", "ci"]
    record(config, [result(tmp_path, "e4srec"), own])
    assert methods(folder) == ["base", "e4srec", "ci"]
    assert {row.method for row in summarise(read_results(tmp_path))} == {"base", "ci", "e4srec"}
    assert left_over(tmp_path, inventory(tmp_path)) == []


def test_a_result_of_the_same_method_is_replaced(tmp_path: Path) -> None:
    config, own = config_of(tmp_path, "ci"), result(tmp_path, "ci")
    record(config, [result(tmp_path, "base", 0.5), own])
    folder = record(config, [result(tmp_path, "base", 0.75), own])
    assert [each["metrics"] for each in read_result(folder / "result.json")] == [
        {"test/masked/HR@10": 0.75},
        {"test/masked/HR@10": 0.5},
    ]


def test_a_record_that_cannot_be_read_is_replaced(tmp_path: Path) -> None:
    config, own = config_of(tmp_path, "ci"), result(tmp_path, "ci")
    folder = record(config, [own])
    for text in ("{", "[]", '{"results": [{"method": "base"}]}'):
        (folder / "result.json").write_text(text)
        record(config, [own])
        assert methods(folder) == ["ci"]
