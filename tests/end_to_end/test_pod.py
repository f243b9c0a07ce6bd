"""Whole runs of `method=pod`, clean and released: their rows, what is refused, and a run that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from support.in_process import train_here
from support.runs import SMALL, result_of, train, train_until_killed
from tslrec.evaluation.protocols import LIST_MARK, LIST_NOTE, LIST_SIGN

pytestmark = pytest.mark.slow

POD = [
    "method=pod",
    *SMALL,
    *("t5.d_model=16", "t5.d_kv=8", "t5.d_ff=32", "t5.num_layers=1", "t5.num_decoder_layers=1", "t5.num_heads=2"),
    *("pod.batch_size=16", "pod.candidates=10", "pod.history=5", "pod.max_epochs=2", "pod.num_beams=10"),
]
"""Overrides of a run that takes a few seconds."""
FORMS = ("false", "true")


@pytest.mark.parametrize("released", FORMS)
def test_a_run_ends_with_its_row_marked(tmp_path: Path, released: str) -> None:
    ended = train_here(*POD, f"pod.released={released}", folder=tmp_path)
    assert ended.code == 0, ended.err
    assert f"POD {LIST_SIGN}" in ended.out
    assert LIST_NOTE in ended.out
    (result,) = result_of(tmp_path)["results"]
    assert (result["method"], result["ranking"]) == ("pod", LIST_MARK)
    assert result["llm"] == "T5-small's sizes (1 + 1 layers of width 16), weights at random"
    found = result["metrics"]
    for protocol in ("masked", "unmasked"):
        assert 0 <= found[f"test/{protocol}/HR@5"] <= found[f"test/{protocol}/HR@10"] <= 1
    assert (found["test/list_length"], found["test/users"], found["epochs"]) == (10, 60, 2)
    again = train_here(*POD, f"pod.released={released}", "model=gru4rec", folder=tmp_path)
    assert "reused" in again.out, again.out


def test_fewer_users_may_be_evaluated(tmp_path: Path) -> None:
    fewer = ("training.validation_users=20", "training.test_users=31", "metrics=[HR@10,Coverage@10]")
    ended = train_here(*POD, *fewer, folder=tmp_path)
    assert ended.code == 0, ended.err
    (result,) = result_of(tmp_path)["results"]
    found = result["metrics"]
    assert (found["validation/users"], found["test/users"]) == (20, 31)
    assert 0 < found["test/masked/Coverage@10"] <= 1


def test_a_process_without_users_of_its_own_takes_part(tmp_path: Path) -> None:
    processes = ("trainer.devices=2", "trainer.strategy=ddp")
    ended = train(*POD, *processes, "training.validation_users=1", "training.test_users=1", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    (result,) = result_of(tmp_path)["results"]
    assert (result["metrics"]["validation/users"], result["metrics"]["test/users"]) == (1, 1)
    (ranks,) = (tmp_path / "artifacts").glob("pod/*/ranks.safetensors")
    assert len(load_file(ranks)["users"]) == 1


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("pod.candidates=600", "t5.whole_words=512"),
        ("pod.num_beams=9", "pod.num_beams=9"),
        ("t5.path=nowhere", "no readable config.json"),
        ("metrics=[HR@20]", "HR@20"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, setting: str, named: str) -> None:
    refusal = train_here(*POD, setting, folder=tmp_path).refusal
    assert named in refusal
    assert len(refusal) <= 320
    assert not list((tmp_path / "artifacts").glob("*/*/manifest.json"))


@pytest.mark.parametrize("released", FORMS)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, released: str) -> None:
    command = [*POD, f"pod.released={released}", "trainer.checkpoint_seconds=0"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir()
    assert train_here(*command, folder=whole).code == 0
    train_until_killed(*command, folder=killed, at="pod/*.checkpoints/step-*", step=8)
    again = train(*command, folder=killed)
    assert again.returncode == 0, again.stderr
    assert "resumes from step" in again.stdout
    for name in ("weights.safetensors", "ranks.safetensors", "numbering.safetensors"):
        (one,), (other,) = ((folder / "artifacts").glob(f"pod/*/{name}") for folder in (whole, killed))
        first, second = load_file(one), load_file(other)
        assert first.keys() == second.keys()
        assert all((first[key] == second[key]).all() for key in first)
