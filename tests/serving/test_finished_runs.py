"""Recommenders of finished runs: every method, loaded from the run and from an export, ranks as its test did."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from support.in_process import RUN, train_here
from support.runs import SMALL
from tslrec import load
from tslrec.serving.export import export
from tslrec.serving.folder import ENCODER, FACTS, ITEM_TABLE
from tslrec.serving.run_folder import open_run
from tslrec.serving.verification import verify_ranks
from tslrec.system.errors import UserError
from tslrec.system.files import describe

pytestmark = pytest.mark.slow

METHODS = ("tslrec", "base", "ci")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the artifacts of one run of three methods, and one of E4SRec."""
    folder = tmp_path_factory.mktemp("runs")
    for overrides in ([*RUN, "compare=[base,ci]"], ["method=e4srec", *SMALL, "e4srec.max_epochs=1"]):
        ended = train_here(*overrides, folder=folder)
        assert ended.code == 0, ended.err
    return folder / "artifacts"


def run_of(runs: Path, method: str) -> Path:
    """The run's folder of a method."""
    (found,) = (runs / "runs").glob(f"{'e4srec' if method == 'e4srec' else 'tslrec'}-*")
    return found


@pytest.mark.parametrize("method", [*METHODS, "e4srec"])
def test_a_loaded_run_ranks_as_its_test_did(runs: Path, method: str) -> None:
    run = open_run(run_of(runs, method), method)
    recommender = load(run.folder, method=method)
    for each in verify_ranks(recommender.engine, run.interactions(), run.last[1], run.config.training.eval_batch_size):
        assert each.users > 0
        assert each.equal == each.users
        for name, value in each.metrics.items():
            assert value == pytest.approx(run.result["metrics"][f"test/{each.protocol}/{name}"], abs=1e-6)
    assert recommender.catalogue.has_titles


@pytest.mark.parametrize("method", METHODS)
def test_an_export_ranks_as_the_run_did(runs: Path, tmp_path: Path, method: str) -> None:
    run = open_run(run_of(runs, method), method)
    facts = export(run, tmp_path / "out")
    recommender = load(tmp_path / "out")
    for each in verify_ranks(recommender.engine, run.interactions(), run.last[1], run.config.training.eval_batch_size):
        assert each.equal == each.users
    assert facts["metrics"] == {k: v for k, v in run.result["metrics"].items() if k.startswith("test/")}
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{facts['metrics']['test/masked/NDCG@10']:.4f}" in card
    history = [[recommender.catalogue.raw_ids[1]]]
    assert recommender.recommend(history).equals(load(run.folder, method=method).recommend(history))


def test_an_export_needs_no_artifacts_and_no_training_code(runs: Path, tmp_path: Path) -> None:
    export(open_run(run_of(runs, "tslrec")), tmp_path / "out")
    code = (
        "import sys, tslrec; r = tslrec.load('out');"
        "print(r.recommend([[r.catalogue.raw_ids[1]]], 3)['item'].to_list());"
        "print([m for m in ('lightning', 'hydra', 'transformers', 'deepspeed', 'peft') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    listed, imported = ended.stdout.splitlines()
    assert imported == "[]"
    recommender = load(run_of(runs, "tslrec"))
    assert listed == str(recommender.recommend([[recommender.catalogue.raw_ids[1]]], 3)["item"].to_list())


def test_the_language_model_cannot_be_exported(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="runs its language model for every user"):
        export(open_run(run_of(runs, "e4srec")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_backbone_with_a_vector_per_user_serves_no_other_histories(tmp_path: Path) -> None:
    ended = train_here("method=base", "model=fpmc", *SMALL, "examples=3", folder=tmp_path)
    assert ended.code == 0, ended.err
    assert "No examples: " in ended.out
    (folder,) = (tmp_path / "artifacts" / "runs").iterdir()
    for use in (load, lambda folder: export(open_run(folder), tmp_path / "out")):
        with pytest.raises(UserError, match=r"model=fpmc has a vector per user, so it serves no other histories; "):
            use(folder)
    assert not (tmp_path / "out").exists()


def test_bert4rec_ranks_as_its_test_did_and_so_does_its_export(tmp_path: Path) -> None:
    ended = train_here("method=tslrec", "model=bert4rec", *SMALL, "training.max_epochs=1", folder=tmp_path)
    assert ended.code == 0, ended.err
    (folder,) = (tmp_path / "artifacts" / "runs").iterdir()
    run = open_run(folder)
    export(run, tmp_path / "out")
    for recommender in (load(folder), load(tmp_path / "out")):
        for each in verify_ranks(
            recommender.engine, run.interactions(), run.last[1], run.config.training.eval_batch_size
        ):
            assert each.equal == each.users > 0


def test_titles_of_a_file_replace_those_of_the_run(runs: Path, tmp_path: Path) -> None:
    raw_id = load(run_of(runs, "base")).catalogue.raw_ids[2]
    (tmp_path / "titles.csv").write_text(f'item_id,title\n{raw_id},"A, with a comma"\nunknown,X\n')
    recommender = load(run_of(runs, "base"), titles=tmp_path / "titles.csv")
    titles = dict(zip(recommender.catalogue.raw_ids, recommender.catalogue.items["title"], strict=True))
    assert titles[raw_id] == "A, with a comma"
    assert titles[recommender.catalogue.raw_ids[1]].startswith("category")
    (tmp_path / "titles.csv").write_text("id,name\n1,x\n")
    with pytest.raises(UserError, match="titles need item_id and title"):
        load(run_of(runs, "base"), titles=tmp_path / "titles.csv")


def test_an_artifacts_folder_with_several_runs_wants_a_name(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 2 runs; name one of them"):
        load(runs)
    with pytest.raises(UserError, match="no recommender; name a finished run"):
        load(tmp_path)
    with pytest.raises(UserError, match="there is no such folder"):
        load(tmp_path / "nothing")
    with pytest.raises(UserError, match="has no method pop; it has base, ci, tslrec"):
        load(run_of(runs, "base"), method="pop")
    with pytest.raises(UserError, match="engine=cuda"):
        load(run_of(runs, "base"), engine="cuda")


@pytest.fixture
def exported(runs: Path, tmp_path: Path) -> Path:
    """An exported folder."""
    export(open_run(run_of(runs, "base"), "base"), tmp_path / "out")
    return tmp_path / "out"


def change(folder: Path, **values: object) -> None:
    """Changes `recommender.json`."""
    facts = json.loads((folder / FACTS).read_text())
    (folder / FACTS).write_text(json.dumps({**facts, **values}))


def test_an_existing_folder_is_never_overwritten(runs: Path, exported: Path) -> None:
    before = (exported / FACTS).read_text()
    with pytest.raises(UserError, match="exists already"):
        export(open_run(run_of(runs, "base")), exported)
    assert (exported / FACTS).read_text() == before


def test_a_damaged_file_is_refused_by_its_hash(exported: Path) -> None:
    content = bytearray((exported / ITEM_TABLE).read_bytes())
    content[-1] ^= 1
    (exported / ITEM_TABLE).write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"item_table.safetensors: not the bytes"):
        load(exported)
    (exported / ITEM_TABLE).unlink()
    with pytest.raises(UserError, match=r"item_table.safetensors: missing"):
        load(exported)


def test_another_format_is_refused(exported: Path) -> None:
    change(exported, format=99)
    with pytest.raises(UserError, match="format 99, but this version of tslrec reads 1"):
        load(exported)
    (exported / FACTS).write_text("{")
    with pytest.raises(UserError, match="not readable"):
        load(exported)


def test_a_name_that_leaves_the_folder_is_refused(exported: Path) -> None:
    for name in ("../secret", "/etc/passwd", "a/../../b"):
        change(exported, files={name: {"bytes": 1, "sha256": ""}})
        with pytest.raises(UserError, match="outside of the folder"):
            load(exported)


def test_a_pickle_in_the_place_of_weights_is_not_loaded(exported: Path, tmp_path: Path) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "executed"),))

    torch.save({"x": Malicious()}, exported / ENCODER)
    facts = json.loads((exported / FACTS).read_text())
    change(exported, files={**facts["files"], ENCODER: describe(exported / ENCODER)})
    with pytest.raises(UserError, match="not safetensors"):
        load(exported)
    assert not (tmp_path / "executed").exists()


def test_a_class_of_another_package_is_not_imported(exported: Path) -> None:
    facts = json.loads((exported / FACTS).read_text())
    change(exported, backbone={**facts["backbone"], "_target_": "antigravity.fly"})
    with pytest.raises(UserError, match=r"names the class antigravity\.fly"):
        load(exported)
    assert "antigravity" not in sys.modules


def test_a_table_with_nan_is_refused(runs: Path, exported: Path, tmp_path: Path) -> None:
    table = load_file(exported / ITEM_TABLE)
    table["item_table"][2, 0] = torch.nan
    save_file(table, exported / ITEM_TABLE)
    facts = json.loads((exported / FACTS).read_text())
    change(exported, files={**facts["files"], ITEM_TABLE: describe(exported / ITEM_TABLE)})
    with pytest.raises(UserError, match="not finite"):
        load(exported)


def test_weights_of_another_model_are_refused(exported: Path) -> None:
    facts = json.loads((exported / FACTS).read_text())
    change(exported, backbone={**facts["backbone"], "inner_size": 7})
    with pytest.raises(UserError, match="weights of another model"):
        load(exported)


def test_a_moved_artifacts_folder_still_loads(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "moved")
    recommender = load(run_of(tmp_path / "moved", "ci"), method="ci")
    assert isinstance(recommender.recommend([[recommender.catalogue.raw_ids[1]]]), pl.DataFrame)
