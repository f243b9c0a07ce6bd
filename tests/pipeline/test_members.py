"""The members of a run: composed like runs of their own, checked before any training, recorded and kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st

from support.checkout import CHECKOUT
from support.in_process import train_here
from support.runs import SMALL, manifests, result_of
from tslrec.config import Config
from tslrec.pipeline.composition import Composer, register_schema
from tslrec.pipeline.identity import identity
from tslrec.pipeline.inventory import inventory, left_over
from tslrec.pipeline.members import choices_of, planned_members
from tslrec.pipeline.result_settings import setting
from tslrec.reports.paper.runner import setting_of
from tslrec.system.errors import UserError

TWO = 'members=["model=sasrec","model=gru4rec seed=1"]'
RUN = ["method=ensemble", *SMALL, "training.max_epochs=1"]


@pytest.fixture
def hydra() -> Iterator[None]:
    register_schema()
    with initialize_config_dir(str(CHECKOUT / "configs"), version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of two members."""
    folder = tmp_path_factory.mktemp("members")
    ended = train_here(*RUN, TWO, folder=folder)
    assert ended.code == 0, ended.err
    return folder


def composed(*overrides: str) -> tuple[Config, Composer]:
    composer = Composer(overrides)
    return composer.config(), composer


@pytest.mark.usefixtures("hydra")
def test_a_member_is_the_run_that_a_person_would_have_started() -> None:
    own = [
        "method=ensemble",
        "preset=tuned",
        "fusion.name=other",
        "training.max_epochs=7",
        "examples=3",
        "compare=[ci]",
    ]
    config, composer = composed(*own, "ensemble.scores=raw", 'members=["model=fmlp seed=4","method=tslrec llm=tiny"]')
    base, tslrec = planned_members(config, composer, None)
    alone, _ = composed("method=base", "model=fmlp", "preset=tuned", "training.max_epochs=7", "seed=4")
    assert (base.config, base.source, base.llm) == (alone, alone, None)
    alone, _ = composed("method=tslrec", "llm=tiny", "preset=tuned", "training.max_epochs=7")
    assert tslrec.config == alone
    assert tslrec.llm is not None


@pytest.mark.usefixtures("hydra")
def test_a_member_may_read_the_embeddings_of_another_model() -> None:
    config, composer = composed("method=ensemble", 'members=["method=ci model=fmlp source_model=sasrec"]')
    (member,) = planned_members(config, composer, None)
    assert (member.config.model["name"], member.source.model["name"]) == ("fmlp", "sasrec")


def test_the_results_are_those_of_a_stand_alone_run(finished: Path, tmp_path: Path) -> None:
    """The same keys: a member reuses what a run of its own has made, and the other way round.

    A choice of a member takes the place of the run's settings inside it, here of `model.hidden_size`.
    """
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    before = manifests(tmp_path)
    same = [word for word in RUN[1:] if not word.startswith("model.")]
    ended = train_here("method=base", *same, "model=gru4rec", "seed=1", folder=tmp_path)
    assert ended.code == 0, ended.err
    assert "base · backbone: reused" in ended.out + ended.err
    assert manifests(tmp_path) == before


def test_the_record_holds_each_member(finished: Path) -> None:
    (result,) = result_of(finished)["results"]
    assert [each["words"] for each in result["members"]] == ["model=sasrec", "model=gru4rec seed=1"]
    for member, model, seed in zip(result["members"], ("sasrec", "gru4rec"), (0, 1), strict=True):
        assert (member["method"], member["model"], member["seed"]) == ("base", model, seed)
        stage = member["stages"]["backbone"]
        manifest = json.loads((Path(stage["folder"]) / "manifest.json").read_text())
        assert (stage["key"], stage["wall_seconds"]) == (manifest["key"], manifest["wall_seconds"])
        assert stage["peak_memory_gib"] > 0
    manifest = json.loads((Path(result["stages"]["ensemble"]["folder"]) / "manifest.json").read_text())
    keys = {f"member-{n}": each["stages"]["backbone"]["key"] for n, each in enumerate(result["members"], 1)}
    assert manifest["inputs"] == {"data": manifest["inputs"]["data"], **keys}


def test_runs_with_other_members_are_told_apart(finished: Path) -> None:
    (result,) = result_of(finished)["results"]

    def changed(**changes: Any) -> Mapping[str, Any]:
        members = [result["members"][0], {**result["members"][1], **changes}]
        return identity({**result, "members": members})

    assert changed() == identity(result)
    assert identity(result)["member-2.seed"] == 1
    assert changed(seed=2) != identity(result)
    config = result["members"][1]["config"]
    other = changed(config={**config, "model": {**config["model"], "num_layers": 3}})
    assert {key for key in other if other[key] != identity(result).get(key)} == {"member-2.model.num_layers"}
    later = [{**each, "seed": each["seed"] + 5} for each in result["members"]]
    assert identity({**result, "seed": 5, "members": later}) == identity(result)


def test_a_cell_of_such_a_run_is_known_as_its_command(finished: Path) -> None:
    (result,) = result_of(finished)["results"]
    where = [f"artifacts={finished / 'artifacts'}", f"cache={finished / 'cache'}"]
    assert setting_of((*RUN, TWO, *where), "ensemble") == setting(result)


def test_what_the_members_are_made_of_is_kept(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    root = tmp_path / "artifacts"
    entries = inventory(root)
    assert len([each for each in entries if each.stage == "backbone"]) == 2
    assert left_over(root, entries) == []
    # Also where the ensemble itself is gone, and so what it was made from is told by the record alone.
    shutil.rmtree(root / "ensemble")
    assert left_over(root, inventory(root)) == []


REFUSED = {
    "no members": ([], "members=[]: method=ensemble reads the recommenders of other runs"),
    "a method that reads none": (["method=base", TWO], "members: method=base reads none"),
    "not KEY=VALUE": (['members=["fmlp"]'], "members: 'fmlp': fmlp is not KEY=VALUE"),
    "an open quote": (['members=["model=\'fmlp"]'], "cannot be read (No closing quotation)"),
    "a removed key": (['members=["~model=x"]'], "is not KEY=VALUE"),
    "a key twice": (['members=["seed=1 seed=2"]'], "members: 'seed=1 seed=2': seed is set twice"),
    "a misspelt key": (['members=["traning.max_epochs=1"]'], "did you mean training.max_epochs?"),
    "a misspelt choice": (['members=["model=fmpl"]'], "members: 'model=fmpl'"),
    "a sweep": (['members=["seed=1,2"]'], "several values need -m"),
    "a value out of bounds": (['members=["training.max_epochs=0"]'], "training.max_epochs=0: must be 1 or more"),
    "other data": (['members=["data=beauty"]'], "data=beauty is the run's own"),
    "other data by a key": (['members=["data.reader.seed=4"]'], "data.reader.seed=4 is the run's own"),
    "another folder": (['members=["artifacts=other"]'], "artifacts=other is the run's own"),
    "members of a member": (['members=["method=ensemble members=[x]"]'], "a member has no members of its own"),
    "a method with members": (['members=["method=ensemble"]'], "method=ensemble reads members"),
    "a method without a recommender": (['members=["method=statistics"]'], "gives no scores of all items"),
    "a method of lists": (['members=["method=pod"]'], "gives no scores of all items"),
    "a method that reranks": (['members=["method=llamarec llm=tiny"]'], "gives no scores of all items"),
    "a vector per user": (['members=["model=fpmc"]'], "model=fpmc has a vector per user"),
    "the same words": (['members=["seed=0","seed=0"]'], "'seed=0' and 'seed=0' are the same run"),
    "the same run": (['members=["model=fmlp","ease.penalty=2 model=fmlp"]'], "are the same run"),
    "other processes": (['members=["trainer.devices=2"]'], "trainer.devices=2"),
    "a continued run": ([TWO, "continue_from=artifacts/runs/x"], "continue_from: a run with members cannot"),
    "too few weights": ([TWO, "ensemble.weights=[1]"], "ensemble.weights: 1 of them for 2 members"),
    "a negative weight": ([TWO, "ensemble.weights=[1,-1]"], "ensemble.weights: -1.0 is no weight"),
    "weights of 0": ([TWO, "ensemble.weights=[0,0]"], "ensemble.weights: all are 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_one_line_and_trains_nothing(name: str, tmp_path: Path) -> None:
    overrides, message = REFUSED[name]
    line = train_here(*RUN, *overrides, folder=tmp_path).refusal
    assert message in line
    assert len(line) <= 307
    assert not list((tmp_path / "artifacts").glob("backbone/*"))


def test_a_method_that_is_compared_does_not_read_the_members(tmp_path: Path) -> None:
    ended = train_here(*RUN, 'members=["seed=0"]', "compare=[base]", folder=tmp_path)
    assert ended.code == 0, ended.err
    base, ensemble = result_of(tmp_path)["results"]
    assert "members" not in base
    assert ensemble["members"][0]["stages"]["backbone"]["key"] == base["stages"]["backbone"]["key"]
    assert ensemble["metrics"]["test/masked/HR@10"] == pytest.approx(base["metrics"]["test/masked/HR@10"], rel=1e-6)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=12) | st.sampled_from(["seed=1", "model=fmlp", "'a", "members=[]", "+x=1"])))
def test_any_words_are_read_or_refused_in_one_line(words: list[str]) -> None:
    try:
        found = list(choices_of(" ".join(words)))
    except UserError as error:
        found, line = [], str(error)
    else:
        line = "read"
    assert line.isprintable()
    assert all(name.lstrip("+") and "=" not in name for name in found)
