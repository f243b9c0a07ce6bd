"""What keys and fingerprints hold of titles: nothing, unless a stage of the method reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tslrec.cli.main import main
from tslrec.config import Config
from tslrec.pipeline.composition import compose_overrides
from tslrec.pipeline.recipes import config_for, data_recipe, stage_recipe, titles_recipe
from tslrec.pipeline.sweeps.fingerprint import fingerprint
from tslrec.stages import registry
from tslrec.stages.declaration import Stage
from tslrec.stages.method_stages import reads_titles, stages_of

READER = Stage("reader", 1, "no.module", reads=("data", "titles"), settings=lambda config: {})
FILE = "elsewhere/titles.csv"


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides of a method that reads titles."""
    monkeypatch.setattr(registry, "STAGES", (READER, *registry.STAGES))
    return ["method=base", "method.name=titled", "method.stages=[reader,backbone]", "llm=tiny"]


def keys(config: Config, titles_sha256: str = "0" * 64) -> dict[str, str]:
    """The keys of a run with one backbone."""
    data = data_recipe(config, "1" * 64)
    found = {"data": data.key}
    if reads_titles(config):
        found["titles"] = titles_recipe(data, titles_sha256).key
    for stage in stages_of(config):
        own = config_for(stage, config, config)
        found[stage.name] = stage_recipe(own, stage, keys=found, llm_identity={"sha256": "2" * 64}).key
    return found


@pytest.mark.parametrize("method", ["base", "ci", "tslrec", "e4srec"])
@pytest.mark.parametrize("data", ["synthetic", "beauty"])
def test_data_titles_is_in_no_key_of_a_method_that_reads_none(method: str, data: str) -> None:
    given = [f"method={method}", f"data={data}", "llm=tiny"]
    without = keys(compose_overrides([*given, "data.titles=null"]))
    assert without == keys(compose_overrides(given)) == keys(compose_overrides([*given, f"data.titles={FILE}"]))
    assert "titles" not in without


def test_the_content_of_the_titles_and_not_their_path_is_in_the_key_of_a_stage_that_reads_them(
    reading: list[str],
) -> None:
    before = keys(compose_overrides([*reading, "data.titles=a.csv"]))
    assert keys(compose_overrides([*reading, "data.titles=b.csv"])) == before
    after = keys(compose_overrides([*reading, "data.titles=a.csv"]), titles_sha256="3" * 64)
    assert {name for name in before if before[name] != after[name]} == {"titles", "reader"}
    filtered = keys(compose_overrides([*reading, "data.titles=a.csv", "data.min_user_interactions=2"]))
    assert filtered["titles"] != before["titles"]


def test_a_sweep_starts_a_run_again_whose_titles_were_written_anew(reading: list[str], tmp_path: Path) -> None:
    path = tmp_path / "titles.csv"
    path.write_text("item_id,title\n1,a\n")
    ours, others = (compose_overrides([*words, f"data.titles={path}"]) for words in (reading, ["llm=tiny"]))
    before = fingerprint(ours), fingerprint(others)
    path.write_text("item_id,title\n1,ab\n")
    after = fingerprint(ours), fingerprint(others)
    assert before[0] != after[0]
    assert before[1] == after[1]


@pytest.mark.usefixtures("reading")
def test_a_plan_needs_no_titles(capsys: pytest.CaptureFixture[str]) -> None:
    stages = "method.stages=[reader,backbone,preferences,sft,augment,fusion]"
    main(["plan", "method=tslrec", "llm=tiny", stages, "data.titles=null"])
    assert "Prompt: " in capsys.readouterr().out
