"""A restored recommender is evaluated as the module that was trained, by one process alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed

from support.in_process import train_here
from support.runs import SMALL
from tslrec.evaluation.chosen_metrics import RankingMetrics
from tslrec.serving.run_folder import FinishedRun, open_run
from tslrec.stages.evaluating import evaluate_restored
from tslrec.stages.restored import Restored
from tslrec.system.safetensors_io import load_tensors

METRICS = "metrics=[HR@5,NDCG@10,Coverage@5]"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("evaluated")
    ended = train_here("method=base", *SMALL, METRICS, "training.validation_users=20", folder=folder)
    assert ended.code == 0, ended.err
    return open_run(folder / "artifacts")


def test_metrics_and_ranks_are_those_of_the_training(run: FinishedRun) -> None:
    interactions = run.interactions()
    restored = run.restore(interactions)
    assert isinstance(restored, Restored)
    recorded = run.result["metrics"]
    for part in ("validation", "test"):
        metrics, ranks = evaluate_restored(restored, interactions, run.config, part)
        assert len(ranks["users"]) == metrics[f"{part}/users"]
        expected = {name: recorded[name] for name in recorded if name.startswith(f"{part}/")}
        # Lightning's logs round to float32.
        assert metrics == pytest.approx(expected, rel=1e-6)
    known = load_tensors(run.last[1] / "ranks.safetensors")
    assert all(torch.equal(ranks[name], known[name]) for name in ("users", "masked", "unmasked"))


def test_a_shorter_input_shows_the_last_items(run: FinishedRun) -> None:
    interactions = run.interactions()
    restored = run.restore(interactions)
    assert isinstance(restored, Restored)
    seen: list[int] = []

    def encode(items_BL: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        seen.append(int(lengths_B.max()))
        return restored.encode(items_BL, lengths_B)

    evaluate_restored(replace(restored, encode=encode, max_len=3), interactions, run.config, "test")
    assert max(seen) == 3


def test_one_process_of_a_job_counts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a process group, `compute` would wait for the other processes, which are not there."""
    metrics = RankingMetrics(["HR@5"])
    metrics.update(torch.tensor([1.0, 9.0]).double(), torch.tensor([2.0, 3.0]).double())

    def waits() -> bool:
        raise AssertionError("asked the process group")

    monkeypatch.setattr(torch.distributed, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_initialized", waits)
    assert metrics.compute_alone() == {"masked/HR@5": 0.5, "unmasked/HR@5": 1.0}
