"""The settings for catalogues of millions, through `train.py` itself on a small market."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from support.interactions import make_interactions
from support.runs import SMALL, assert_one_line, result_of, train
from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.evaluated_users import sample_users

MARKET = [text for text in SMALL if text != "llm=tiny"]
LARGE = ["training.num_negatives=10", "training.steps_per_epoch=3", "training.batch_size=64"]
USERS = ["training.validation_users=20", "training.test_users=30"]


@pytest.mark.parametrize("model", ["sasrec", "fmlp"])
def test_a_run_uses_them_and_says_so(tmp_path: Path, model: str) -> None:
    run = train("method=ci", f"model={model}", *MARKET, *LARGE, *USERS, "training.max_epochs=4", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "Tested on 30 users drawn at random" in run.stdout
    (result,) = result_of(tmp_path)["results"]
    assert (result["metrics"]["validation/users"], result["metrics"]["test/users"]) == (20, 30)
    for stage in ("backbone", "fusion"):
        (log,) = (tmp_path / "artifacts" / stage).glob("*/log/metrics.csv")
        with log.open() as file:
            validated = [row["step"] for row in csv.DictReader(file) if row["validation/masked/NDCG@10"]]
        assert validated == ["2", "5", "8", "11"]


def test_the_same_seed_draws_the_same_negatives(tmp_path: Path) -> None:
    metrics = []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        run = train("method=base", *MARKET, *LARGE, folder=tmp_path / name)
        assert run.returncode == 0, run.stderr
        metrics.append(result_of(tmp_path / name)["results"][0]["metrics"])
    assert metrics[0] == metrics[1]


def test_more_negatives_than_items_are_refused_before_any_training(tmp_path: Path) -> None:
    line = assert_one_line(train("method=base", "training.num_negatives=40", *MARKET, folder=tmp_path))
    assert "training.num_negatives=40" in line
    assert "only 40 items" in line
    assert not (tmp_path / "artifacts" / "backbone").exists()


def test_users_that_stand_for_all_are_drawn_once_and_alike_for_every_seed() -> None:
    # Every fourth user is too short to be evaluated.
    interactions = make_interactions([[1, 2, 3, 4][: 2 + min(user % 4, 2)] for user in range(200)])
    samples = []
    for seed in (0, 1):
        data = SequenceDataModule(
            interactions,
            max_len=4,
            batch_size=16,
            eval_batch_size=8,
            all_positions=False,
            seed=seed,
            validation_users=30,
        )
        epochs = [[user for batch in data.val_dataloader() for user in batch.users_B.tolist()] for _ in range(2)]
        assert epochs[0] == epochs[1]
        samples.append(epochs[0])
        tested = [user for batch in data.test_dataloader() for user in batch.users_B.tolist()]
        assert sorted(tested) == interactions.evaluated_users.tolist()
    assert samples[0] == samples[1]
    assert len(set(samples[0])) == 30
    assert set(samples[0]) <= set(interactions.evaluated_users.tolist())


def test_a_sample_of_more_users_than_there_are_is_all_of_them() -> None:
    interactions = make_interactions([[1, 2, 3]] * 5 + [[1, 2]])
    assert np.array_equal(sample_users(interactions, 9), interactions.evaluated_users)
