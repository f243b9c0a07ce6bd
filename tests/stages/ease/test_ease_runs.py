"""Runs of `method=ease`: ranks by hand, its recommender, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.in_process import Ended, train_here
from support.runs import SMALL, result_of, train, train_until_killed
from tslrec import load
from tslrec.config import Config
from tslrec.evaluation.user_ranks import RANKS
from tslrec.serving.export import export
from tslrec.serving.run_folder import open_run
from tslrec.serving.verification import verify_ranks
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.stages.ease import limits
from tslrec.stages.ease.limits import check_ease
from tslrec.stages.ease.restored import had
from tslrec.stages.restored import Restored
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_arrays

EASE = ["method=ease", *SMALL, "ease.penalty=20"]


def run(folder: Path, *words: str) -> Ended:
    ended = train_here(*EASE, *words, folder=folder)
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("ease")
    run(folder, "metrics=[HR@10,NDCG@10,Coverage@5]")
    return folder


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    histories=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=5),
)
def test_a_user_s_vector_counts_each_item_of_the_history_once(histories: list[list[int]]) -> None:
    width = max(map(len, histories))
    items_BL = torch.tensor([history + [0] * (width - len(history)) for history in histories])
    expected = torch.zeros(len(histories), 10)
    for row, history in enumerate(histories):
        expected[row, list(set(history))] = 1
    assert torch.equal(had(items_BL, 10), expected)


def test_ranks_are_those_of_scores_by_hand(folder: Path) -> None:
    finished = open_run(folder / "artifacts")
    data = finished.interactions()
    restored = finished.restore(data)
    assert isinstance(restored, Restored)
    assert restored.max_len == data.lengths.max()
    encoder = np.stack([restored.encode(torch.tensor([[item]]), torch.tensor([1]))[0] for item in range(41)])
    weights = encoder.astype(np.float64) @ restored.output_IE.double().numpy().T
    known = load_arrays(finished.last[1] / RANKS)
    assert known["users"].tolist() == data.evaluated_users.tolist()
    for place, user in enumerate(known["users"]):
        *history, target = data.sequence(user).tolist()
        scores = weights[sorted(set(history))].sum(axis=0)
        others = np.delete(scores[1:], target - 1)
        near = np.abs(others - scores[target]) < 1e-6
        ahead = (others[~near] > scores[target]).sum()
        assert 1 + ahead <= known["unmasked"][place] <= 1 + ahead + near.sum()
    hits = {name: (known[name] <= 10).mean() for name in ("masked", "unmasked")}
    (result,) = result_of(folder)["results"]
    metrics = result["metrics"]
    assert {name: metrics[f"test/{name}/HR@10"] for name in hits} == pytest.approx(hits)
    assert metrics["test/users"] == metrics["validation/users"] == len(known["users"])
    assert metrics.keys() >= {"validation/masked/NDCG@10", "validation/unmasked/HR@10", "test/masked/Coverage@5"}
    assert "epochs" not in metrics


def test_a_loaded_recommender_ranks_as_the_run_did(folder: Path) -> None:
    finished = open_run(folder / "artifacts")
    data = finished.interactions()
    recommender = load(folder / "artifacts")
    for compared in verify_ranks(recommender.engine, data, finished.last[1], finished.config.training.eval_batch_size):
        assert compared.equal == compared.users == len(data.evaluated_users)
    histories = [[data.ids.items[item] for item in data.sequence(0)], [data.ids.items[3]]]
    lists = recommender.recommend(histories, k=5)
    assert lists["user"].to_list() == [0] * 5 + [1] * 5
    assert not set(lists["item"][:5]) & set(histories[0])


def test_an_index_finds_the_same_items(folder: Path) -> None:
    pytest.importorskip("faiss")
    data = open_run(folder / "artifacts").interactions()
    histories = [[data.ids.items[item] for item in data.sequence(user)] for user in range(20)]
    lists = [load(folder / "artifacts", engine=engine).recommend(histories, k=5) for engine in ("pytorch", "flat")]
    assert lists[0]["score"].to_list() == pytest.approx(lists[1]["score"].to_list(), abs=1e-5)


def test_it_is_not_exported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ease has no encoder, so there is nothing smaller to export"):
        export(open_run(folder / "artifacts"), tmp_path / "exported")
    assert not list(tmp_path.iterdir())


def test_validation_users_are_drawn_and_results_are_reused(tmp_path: Path) -> None:
    run(tmp_path, "training.validation_users=7", "training.test_users=9")
    (path,) = (tmp_path / "artifacts" / "runs").glob("*/result.json")
    assert len(load_arrays(open_run(path.parent).last[1] / RANKS)["users"]) == 9
    # What a backbone reads is no part of its key.
    again = run(tmp_path, "training.validation_users=7", "training.test_users=9", "training.batch_size=7", "model=fmlp")
    assert "ease · ease: reused" in again.out + again.err
    other = run(tmp_path, "training.validation_users=7", "training.test_users=9", "ease.penalty=21")
    assert "ease · ease: computed" in other.out + other.err


@pytest.mark.slow
def test_a_killed_run_publishes_nothing_and_ends_as_another_one(tmp_path: Path) -> None:
    train_until_killed(*EASE, folder=tmp_path, at="ease/*", moment="before")
    assert not list((tmp_path / "artifacts" / "runs").glob("*/result.json"))
    ended = train(*EASE, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "ease · ease: computed" in ended.stdout + ended.stderr
    whole = tmp_path / "whole"
    run(whole)
    first, second = (
        load_arrays(open_run(each / "artifacts").last[1] / "item_weights.safetensors") for each in (tmp_path, whole)
    )
    assert np.array_equal(first["weights"], second["weights"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ease.penalty=0"], r"ease\.penalty=0.*above 0"),
        (["ease.penalty=nan"], r"ease\.penalty=nan"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    assert re.search(message, train_here(*EASE, *words, folder=tmp_path).refusal)
    assert not (tmp_path / "artifacts" / "ease").exists()


def test_more_items_than_the_memory_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory_bytes", lambda: 2**30)
    config = Config(method=MethodConfig("ease", ["ease"]), data=DataConfig("shop", "Shop", {}))
    check_ease(config, 6_000)
    with pytest.raises(UserError) as raised:
        check_ease(config, 7_000)
    line = str(raised.value)
    assert "7,000 items" in line
    assert "data.min_item_interactions" in line
    assert len(line) <= 300
