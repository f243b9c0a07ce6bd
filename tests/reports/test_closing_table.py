"""What stands above the closing table: the backbone, where a method of the run trains one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from tslrec.config import Config
from tslrec.pipeline.artifacts import Artifact
from tslrec.pipeline.composition import compose_overrides
from tslrec.pipeline.results import MethodResult
from tslrec.reports.closing_table import ranking_table


def result_of(config: Config) -> MethodResult:
    stages = {
        name: Artifact(Path(name), {"key": name, "metrics": {"test/masked/HR@10": 0.5}}, reused=True)
        for name in config.method.stages
    }
    return MethodResult(
        method=config.method.name,
        data=config.data.name,
        model=str(config.model["name"]),
        source_model=str(config.source_model or config.model["name"]),
        preset=config.preset,
        seed=config.seed,
        llm=None,
        stages=stages,
        config=asdict(config),
    )


@pytest.mark.parametrize(
    ("words", "title"),
    [
        (["method=pod"], "synthetic · preset small · seed 0"),
        (["method=base", "model=fmlp", "seed=3"], "synthetic · fmlp · preset small · seed 3"),
        (["method=e4srec"], "synthetic · sasrec · preset small · seed 0"),
        (["method=ci", "source_model=fmlp"], "synthetic · sasrec, preferences from fmlp · preset small · seed 0"),
    ],
)
def test_the_title_names_the_backbone_that_is_trained(words: list[str], title: str) -> None:
    result = result_of(compose_overrides(words))
    assert ranking_table([result], ["HR@10"]).title == title


def test_a_method_without_a_backbone_beside_one_with_it() -> None:
    base, pod = (result_of(compose_overrides([f"method={name}"])) for name in ("base", "pod"))
    assert ranking_table([base, pod], ["HR@10"]).title == "synthetic · sasrec · preset small · seed 0"
