"""`tslrec export` on a small trained run, and the folder that it writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import tslrec
from support.in_process import forge, train_here
from support.runs import SMALL, run_environment
from support.waiting import HANG_SECONDS
from tslrec.cli.main import run
from tslrec.serving.onnx.engine import OnnxEngine
from tslrec.system import optional_packages
from tslrec.system.errors import UserError
from tslrec.system.files import describe

pytestmark = pytest.mark.slow

FILES = {"README.md", "encoder.safetensors", "item_table.safetensors", "items.parquet"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts with one run."""
    folder = tmp_path_factory.mktemp("trained")
    ended = train_here("method=base", *SMALL, folder=folder)
    assert ended.code == 0, ended.err
    return folder / "artifacts"


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with all options."""
    folder = tmp_path_factory.mktemp("exported") / "recommender"
    run(["export", str(trained), "--to", str(folder), "--onnx", "--int8", "--index"])
    return folder


def facts_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "recommender.json").read_text())
    return facts


def change_facts(folder: Path, **changes: Any) -> None:
    (folder / "recommender.json").write_text(json.dumps({**facts_of(folder), **changes}))


def all_histories(trained: Path) -> list[list[str]]:
    """A hundred histories of the catalogue's items."""
    raw_ids = tslrec.load(trained).catalogue.raw_ids[1:].to_list()
    generator = np.random.default_rng(0)
    return [list(generator.choice(raw_ids, generator.integers(1, 30))) for _ in range(100)]


def test_a_plain_export_needs_no_onnx(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["export", str(trained), "--to", str(tmp_path / "plain")])
    printed = capsys.readouterr().out
    assert set(facts_of(tmp_path / "plain")["files"]) == FILES
    assert all(name in printed for name in FILES)
    assert "onnx" not in printed.lower()
    assert f'tslrec.load("{tmp_path / "plain"}")' in printed


@pytest.mark.slow
def test_what_was_written_and_measured_is_printed(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recommender"
    run(["export", str(trained), "--to", str(folder), "--int8", "--index"])
    captured = capsys.readouterr()
    facts = facts_of(folder)
    assert captured.err == ""
    assert set(facts["files"]) == {*FILES, "recommender.onnx", "recommender-int8.onnx", "index.safetensors"}
    for name, each in facts["files"].items():
        assert describe(folder / name) == each
        assert name in captured.out
    assert f"{facts['onnx']['checked']['same_top_10']:.2%} of 120 lists are PyTorch's" in captured.out
    assert f"{facts['onnx']['int8']['int8']['NDCG@10']:.4f}, over 60 test users" in captured.out
    assert f"HNSW: finds {facts['index']['recall@10']:.2%}" in captured.out


def test_facts_and_card_hold_what_was_measured(exported: Path) -> None:
    facts = facts_of(exported)
    graph, card = facts["onnx"], (exported / "README.md").read_text()
    assert (graph["opset"], graph["padded_to_max_len"]) == (18, False)
    assert graph["checked"]["lists"] == 2 * graph["checked"]["users"] == 120
    assert graph["checked"]["same_top_10"] * 120 + graph["checked"]["near_ties"] == pytest.approx(120)
    assert 0 <= graph["checked"]["largest_difference"] < 1e-4
    assert "`recommender.onnx` is the whole recommender as one graph (opset 18)" in card
    assert "`recommender-int8.onnx` is the same in int8" in card
    assert "`index.safetensors` is an HNSW graph" in card


def test_the_float32_graph_has_the_metrics_of_the_run(exported: Path) -> None:
    """The run's evaluation breaks ties otherwise, but trained scores have none."""
    facts = facts_of(exported)
    small = facts["onnx"]["int8"]
    assert small["users"] == 60
    for name in ("HR@10", "NDCG@10"):
        assert small["float32"][name] == pytest.approx(facts["metrics"][f"test/masked/{name}"], abs=1e-6)
        assert small["loss"][name] == pytest.approx(small["float32"][name] - small["int8"][name])


def test_every_engine_gives_the_lists_of_the_run(trained: Path, exported: Path) -> None:
    histories = all_histories(trained)
    expected = tslrec.load(trained).recommend(histories, k=5)
    for engine, least in {
        "pytorch": 1.0,
        "onnxruntime": 0.99,
        "onnxruntime-int8": 0.7,
        "flat": 0.99,
        "hnsw": 0.9,
    }.items():
        found = tslrec.load(exported, engine=engine).recommend(histories, k=5)
        assert found.select("user", "rank").equals(expected.select("user", "rank"))
        assert (found["item"] == expected["item"]).to_numpy().mean() >= least, engine
    assert tslrec.load(exported, engine="hnsw").engine.name == "hnsw over pytorch"
    assert tslrec.load(trained, engine="hnsw").recommend(histories, k=5).height == expected.height


def test_an_export_is_loaded_and_asked_without_torch(exported: Path) -> None:
    program = """
import sys
import tslrec
for engine in ("onnxruntime", "onnxruntime-int8"):
    recommender = tslrec.load(sys.argv[1], engine=engine)
    raw_ids = recommender.catalogue.raw_ids[1:6].to_list()
    assert recommender.recommend([raw_ids, raw_ids[:1]], k=3).height == 6
    assert recommender.recommend([raw_ids], k=3, only=raw_ids[:1], filter_seen=False).height == 1
    assert recommender.score([raw_ids], raw_ids).height == 5
    assert recommender.user_vectors([raw_ids]).shape == recommender.item_vectors()[:1].shape
    assert recommender.similar(raw_ids, k=2).height == 10
heavy = ("torch", "onnx", "lightning", "hydra", "omegaconf", "transformers", "safetensors.torch", "tslrec.config")
print([name for name in heavy if name in sys.modules])
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(exported)],
        env=run_environment(exported.parent),
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "[]", "")


def test_the_folder_must_be_new(trained: Path, exported: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.iterdir()}
    with pytest.raises(UserError, match="exists already; name a new folder, or delete it"):
        run(["export", str(trained), "--to", str(exported), "--onnx"])
    assert {path: path.stat().st_mtime_ns for path in exported.iterdir()} == before


def test_an_export_takes_titles_and_refuses_another_method(exported: Path, tmp_path: Path) -> None:
    item = tslrec.load(exported).catalogue.raw_ids[3]
    (tmp_path / "titles.csv").write_text(f"item_id,title\n{item},A new title\n")
    found = tslrec.load(exported, titles=tmp_path / "titles.csv", method="base").catalogue.named([item])
    assert found[0]["title"] == "A new title"
    with pytest.raises(UserError, match="an export of the method base; name the run to load tslrec"):
        tslrec.load(exported, method="tslrec")
    with pytest.raises(UserError, match="nowhere"):
        tslrec.load(exported, titles=tmp_path / "nowhere.csv")


def test_an_unknown_method_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no method tslrec; it has base"):
        run(["export", str(trained), "--to", str(tmp_path / "new"), "--method", "tslrec"])


@pytest.mark.parametrize(("option", "package"), [("--onnx", "onnxscript"), ("--index", "faiss")])
def test_an_option_names_the_package_that_it_lacks(
    option: str, package: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optional_packages, "installed", lambda name: name != package)
    with pytest.raises(UserError, match=f"{package} is not installed; install it with pip install"):
        run(["export", str(trained), "--to", str(tmp_path / "new"), option])
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused(trained: Path, tmp_path: Path) -> None:
    artifacts = shutil.copytree(trained, tmp_path / "artifacts")
    (path,) = artifacts.glob("backbone/*/weights.safetensors")
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[0] = torch.nan
    save_file(weights, path)
    forge(path)
    with pytest.raises(UserError, match="numbers that are not finite"):
        run(["export", str(artifacts), "--to", str(tmp_path / "new"), "--onnx"])
    assert [path.name for path in tmp_path.iterdir()] == ["artifacts"]


@pytest.mark.slow
def test_a_graph_that_recommends_other_items_is_not_exported(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = OnnxEngine.best_items

    def wrong(self: OnnxEngine, *arguments: Any) -> Any:
        ids_BK, scores_BK = right(self, *arguments)
        ids_BK[0, [0, -1]] = ids_BK[0, [-1, 0]]
        return ids_BK, scores_BK

    monkeypatch.setattr(OnnxEngine, "best_items", wrong)
    with pytest.raises(UserError, match=r"recommender\.onnx: for \d+ of 120 lists onnxruntime gives other items"):
        run(["export", str(trained), "--to", str(tmp_path / "new"), "--onnx"])
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    """An export that may be damaged."""
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.mark.parametrize("name", ["recommender.onnx", "recommender-int8.onnx", "index.safetensors"])
def test_a_damaged_file_is_refused(name: str, copy: Path) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: not the bytes that recommender.json names"):
        tslrec.load(copy, engine="onnxruntime")


@pytest.mark.parametrize("name", ["items.parquet", "item_table.safetensors", "encoder.safetensors"])
def test_a_file_that_the_facts_do_not_name_is_refused(name: str, copy: Path) -> None:
    change_facts(copy, files={key: each for key, each in facts_of(copy)["files"].items() if key != name})
    with pytest.raises(UserError, match=rf"recommender\.json: does not name {name} among its files; export again"):
        tslrec.load(copy)


@pytest.mark.parametrize("change", [{"backbone": None}, {"max_len": "50"}])
def test_facts_without_a_backbone_are_refused(change: dict[str, Any], copy: Path) -> None:
    change_facts(copy, **change)
    with pytest.raises(UserError, match="does not say which backbone it is, and of which length; export again"):
        tslrec.load(copy)


def test_a_file_that_is_no_graph_is_refused(copy: Path) -> None:
    (copy / "recommender.onnx").write_bytes(b"\x80\x04no graph")
    facts = facts_of(copy)
    change_facts(copy, files={**facts["files"], "recommender.onnx": describe(copy / "recommender.onnx")})
    with pytest.raises(UserError, match=r"recommender\.onnx: onnxruntime cannot run it .*; export again"):
        tslrec.load(copy, engine="onnxruntime")


@pytest.mark.parametrize("file", ["../../etc/passwd", "recommender.onnx"])
def test_a_table_in_another_file_is_refused(file: str, copy: Path) -> None:
    change_facts(copy, onnx={**facts_of(copy)["onnx"], "table": {"file": file, "array": "item_table"}})
    with pytest.raises(UserError, match="which is none of its files; do not use it"):
        tslrec.load(copy, engine="onnxruntime")


def test_a_table_that_is_not_finite_is_refused(copy: Path) -> None:
    table = load_file(copy / "item_table.safetensors")
    table["item_table"][3, 1] = torch.nan
    save_file(table, copy / "item_table.safetensors")
    facts = facts_of(copy)
    change_facts(copy, files={**facts["files"], "item_table.safetensors": describe(copy / "item_table.safetensors")})
    with pytest.raises(UserError, match="not finite"):
        tslrec.load(copy, engine="onnxruntime")


@pytest.mark.parametrize(("engine", "option"), [("onnxruntime", "--onnx"), ("onnxruntime-int8", "--int8")])
def test_a_graph_that_was_not_exported_is_named(engine: str, option: str, trained: Path, tmp_path: Path) -> None:
    run(["export", str(trained), "--to", str(tmp_path / "plain")])
    with pytest.raises(UserError, match=f"export the run again, with {option}"):
        tslrec.load(tmp_path / "plain", engine=engine)
    with pytest.raises(UserError, match=f"a run has no ONNX graph; .* {option}"):
        tslrec.load(trained, engine=engine)
