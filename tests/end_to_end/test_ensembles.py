"""A whole run of an ensemble of two models and two seeds: killed, reused, served; its ranks are a brute-force sum's."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from support.runs import SMALL, manifests, result_of, train, train_until_killed
from tslrec import load
from tslrec.data.evaluated_users import seen_items
from tslrec.data.interactions import TEST, Interactions
from tslrec.pipeline.inventory import inventory, left_over
from tslrec.pipeline.unfinished import unfinished_runs
from tslrec.reports.paper.collect import collect
from tslrec.reports.paper.grid import Cell
from tslrec.serving.export import export
from tslrec.serving.run_folder import FinishedRun, open_run
from tslrec.serving.verification import verify_ranks
from tslrec.stages.restored import Restored
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_tensors

MEMBERS = 'members=["model=sasrec","model=sasrec seed=1","model=gru4rec training.max_len=4"]'
RUN = ["method=ensemble", *SMALL, MEMBERS]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    run = train(*RUN, folder=folder)
    assert run.returncode == 0, run.stderr
    return folder


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file of weights, ranks and trials."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "artifacts").rglob("*"))
        if path.suffix == ".safetensors" or path.name == "ensemble.json"
    }


def z_sum(folder: Path, interactions: Interactions) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The weighted sum of the members' z-scores of all items for each tested user, user by user in float64."""
    run = open_run(folder / "artifacts")
    weights = json.loads((run.last[1] / "ensemble.json").read_text())["weights"]
    users_T = interactions.evaluated_users
    total = np.zeros((len(users_T), interactions.num_items))
    for member, weight in zip(run.members, weights, strict=True):
        stage = {member.stage: member.folder}
        alone = FinishedRun(run.folder, run.result, member.config, stage, run.data_folder)
        restored = alone.restore(interactions)
        assert isinstance(restored, Restored)
        for row, user in enumerate(users_T):
            begin, end = interactions.offsets[user], interactions.offsets[user + 1] - TEST
            history = interactions.items[max(begin, end - restored.max_len) : end].astype(np.int64)
            user_1E = restored.encode(torch.from_numpy(history)[None], torch.tensor([len(history)]))
            scores_I = restored.output_IE[1:].double().numpy() @ user_1E[0].double().numpy()
            total[row] += weight * (scores_I - scores_I.mean()) / scores_I.std()
    return total, users_T


def test_the_ranks_are_those_of_the_z_scores_summed_in_float64(finished: Path) -> None:
    run = open_run(finished / "artifacts")
    interactions = run.interactions()
    total_TI, users_T = z_sum(finished, interactions)
    targets_T = interactions.items[interactions.offsets[users_T + 1] - TEST].astype(np.int64)
    target_T1 = total_TI[np.arange(len(users_T)), targets_T - 1][:, None]
    ranks = load_tensors(run.last[1] / "ranks.safetensors")
    assert ranks["users"].tolist() == users_T.tolist()
    assert ranks["unmasked"].tolist() == (1 + (total_TI > target_T1).sum(axis=1)).tolist()
    rows_S, items_S = seen_items(interactions, interactions.offsets[users_T], interactions.offsets[users_T + 1] - TEST)
    hidden_TI = np.zeros_like(total_TI, dtype=bool)
    hidden_TI[rows_S.numpy(), items_S.numpy() - 1] = True
    masked_T = 1.0 + ((total_TI > target_T1) & ~hidden_TI).sum(axis=1)
    masked_T[hidden_TI[np.arange(len(users_T)), targets_T - 1]] = np.inf
    assert ranks["masked"].tolist() == masked_T.tolist()


def test_the_weights_are_the_best_trial_and_no_member_is_better_alone(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    (result,) = result_of(finished)["results"]
    metrics = result["metrics"]
    content = json.loads((Path(result["stages"]["ensemble"]["folder"]) / "ensemble.json").read_text())
    best = max(content["trials"], key=lambda trial: trial["value"])
    assert content["weights"] == best["weights"] == [metrics[f"weight/{number}"] for number in (1, 2, 3)]
    assert content["selected_by"] == "validation/masked/NDCG@10"
    assert metrics["trials"] == len(content["trials"])
    assert metrics["validation/masked/NDCG@10"] == pytest.approx(best["value"], abs=1e-9)
    for number, member in enumerate(result["members"], 1):
        own = member["metrics"]["validation/masked/NDCG@10"]
        assert metrics[f"member/{number}"] == pytest.approx(own, rel=1e-6)
        assert metrics["validation/masked/NDCG@10"] >= metrics[f"member/{number}"]
    assert {"test/masked/HR@5", "test/unmasked/NDCG@10", "test/users", "validation/users"} <= set(metrics)


def test_a_killed_run_goes_on_with_what_its_members_have_made(finished: Path, tmp_path: Path) -> None:
    train_until_killed(*RUN, folder=tmp_path, at="backbone/*gru4rec*", moment="before")
    assert len(list((tmp_path / "artifacts" / "backbone").glob("*sasrec*/manifest.json"))) == 2
    # What an interrupted run has made is kept, that of its members included.
    root = tmp_path / "artifacts"
    assert left_over(root, inventory(root), unfinished_runs(root)) == []
    run = train(*RUN, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("base · backbone: reused") == 2
    assert digests(tmp_path) == digests(finished)


def test_the_same_run_again_computes_nothing(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    before = manifests(tmp_path)
    run = train(*RUN, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "ensemble · ensemble: reused" in run.stdout
    assert manifests(tmp_path) == before


def test_given_weights_are_not_searched_for(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "artifacts" / "runs")
    run = train(*RUN, "ensemble.weights=[2,1,1]", "ensemble.scores=raw", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    (result,) = result_of(tmp_path)["results"]
    assert [result["metrics"][f"weight/{number}"] for number in (1, 2, 3)] == [0.5, 0.25, 0.25]
    assert result["metrics"]["trials"] == 4


def test_it_recommends_and_verifies(finished: Path) -> None:
    run = open_run(finished / "artifacts")
    recommender = load(finished / "artifacts")
    for each in verify_ranks(recommender.engine, run.interactions(), run.last[1], run.config.training.eval_batch_size):
        assert (each.users, each.equal) == (60, 60)
    raw_ids = recommender.catalogue.raw_ids.to_list()[1:8]
    found = recommender.recommend([raw_ids, raw_ids[:1]], k=5)
    assert found.group_by("user").len()["len"].to_list() == [5, 5]
    indexed = load(finished / "artifacts", engine="flat").recommend([raw_ids], k=5)
    assert indexed["item"].to_list() == found["item"].to_list()[:5]
    assert recommender.facts["members"] == [member.words for member in run.members]
    assert recommender.user_vectors([raw_ids]).shape == (1, recommender.item_vectors().shape[1])


def test_a_damaged_member_is_told(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (weights,) = (tmp_path / "artifacts" / "backbone").glob("*gru4rec*/weights.safetensors")
    weights.write_bytes(b"x")
    with pytest.raises(UserError, match=r"weights\.safetensors"):
        load(tmp_path / "artifacts")


def test_it_is_not_exported(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sums the scores of 3 recommenders") as refused:
        export(open_run(finished / "artifacts"), tmp_path / "exported")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "exported").exists()


def test_a_cell_holds_the_members_and_their_cost(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished)
    (result,) = result_of(finished)["results"]
    cell = Cell("ladder", "synthetic", "sasrec", "ensemble", 0, "small", "tiny", "cpu")
    found = collect(cell, result, "1", finished / "artifacts", tmp_path).content
    assert [each["words"] for each in found["members"]] == [each["words"] for each in result["members"]]
    assert found["curve"] == []
    assert all("wall_seconds" in each["stages"]["backbone"] for each in found["members"])


def test_two_processes_search_and_test_once(tmp_path: Path) -> None:
    """Rank 0 sums the scores alone, beside the process group of the members' trainings."""
    run = train(*RUN, "trainer.devices=2", "trainer.strategy=ddp", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert sorted(name.split("/")[0] for name in manifests(tmp_path)) == ["backbone"] * 3 + ["data", "ensemble"]
    (result,) = result_of(tmp_path)["results"]
    assert [result["stages"]["ensemble"]["processes"], result["metrics"]["test/users"]] == [1, 60]
    assert all(member["stages"]["backbone"]["processes"] == 2 for member in result["members"])
