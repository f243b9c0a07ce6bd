"""A whole run by two processes of one job, through `train.py` itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from support.checkout import CHECKOUT
from support.runs import SMALL, manifests, result_of, train, train_until_killed
from support.waiting import HANG_SECONDS, wait_until

# An odd number of users; no dropout, whose masks are each process's own.
RUN = ["experiment=quickstart", *SMALL, "data.reader.num_users=61"]
RUN += ["model.hidden_dropout=0.0", "model.attention_dropout=0.0", "training.batch_size=64"]
TWO = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.llm_strategy=ddp"]
STAGES = ["augment", "backbone", "data", "fusion", "fusion", "preferences", "sft"]
ONE_USER = 1 / 61


def finish(folder: Path, *arguments: str) -> tuple[Path, str]:
    """A run in a folder, which must succeed, and what it printed."""
    run = train(*arguments, folder=folder)
    assert run.returncode == 0, run.stderr
    return folder, run.stdout


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run by one process."""
    return finish(tmp_path_factory.mktemp("one"), *RUN)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same by two."""
    return finish(tmp_path_factory.mktemp("two"), *RUN, *TWO)


def manifest(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "artifacts" / name / "manifest.json").read_text())
    return content


def test_every_stage_is_computed_once_in_the_place_where_one_process_puts_it(
    one: tuple[Path, str], two: tuple[Path, str]
) -> None:
    assert sorted(name.split("/")[0] for name in manifests(two[0])) == STAGES
    assert manifests(two[0]).keys() == manifests(one[0]).keys()
    assert not list(two[0].glob("artifacts/*/*.partial"))
    processes = {name.split("/")[0]: manifest(two[0], name).get("processes") for name in manifests(two[0])}
    assert processes == {"data": None, "backbone": 2, "preferences": 1, "sft": 2, "augment": 2, "fusion": 2}


def test_only_one_of_the_processes_speaks(one: tuple[Path, str], two: tuple[Path, str]) -> None:
    def told(printed: str) -> list[str]:
        return re.findall(r"^\w+ · \w+: (?:computed|reused)", printed, flags=re.MULTILINE)

    assert len(told(one[1])) == 9
    assert told(two[1]) == told(one[1])
    assert two[1].count("result.json") == 1


def test_the_results_are_those_of_one_process(one: tuple[Path, str], two: tuple[Path, str]) -> None:
    for name in manifests(one[0]):
        weights = one[0] / "artifacts" / name / "weights.safetensors"
        if weights.is_file():
            # The same sums in float32, in another order.
            assert_close(load_file(two[0] / weights.relative_to(one[0])), load_file(weights), rtol=0, atol=1e-4)
        if name.startswith("sft"):
            losses = [manifest(folder, name)["metrics"]["loss_mean"] for folder in (one[0], two[0])]
            assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for alone, together in zip(result_of(one[0])["results"], result_of(two[0])["results"], strict=True):
        metrics = {key: value for key, value in alone["metrics"].items() if "@" in key}
        assert len(metrics) == 16
        # Scores that are nearly equal may change places: of one user at most.
        assert {key: together["metrics"][key] for key in metrics} == pytest.approx(metrics, rel=0, abs=ONE_USER)


def test_two_processes_go_on_with_what_one_computed(one: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(one[0], folder)
    shutil.rmtree(folder / "artifacts" / "fusion")
    before = manifests(folder)
    _, printed = finish(folder, *RUN, *TWO)
    after = manifests(folder)
    # All that is there is reused by both of them, and only the rest is computed.
    assert {name: after[name] for name in before} == before
    assert printed.count("computed in") == 2
    made = after.keys() - before.keys()
    assert {(name.split("/")[0], manifest(folder, name)["processes"]) for name in made} == {("fusion", 2)}


def test_two_processes_that_were_killed_end_with_the_bits_of_two_that_were_not(
    two: tuple[Path, str], tmp_path: Path
) -> None:
    again = [*RUN, *TWO, "method=base", "compare=[]", "trainer.checkpoint_seconds=0"]
    train_until_killed(*again, folder=tmp_path, at="backbone/*.checkpoints/step-*", step=3)
    _, printed = finish(tmp_path, *again)
    assert "base backbone: resumes from step" in printed
    (name,) = (name for name in manifests(tmp_path) if name.startswith("backbone/"))
    for file in ("weights.safetensors", "item_embeddings.safetensors", "log/metrics.csv"):
        found, expected = (folder / "artifacts" / name / file for folder in (tmp_path, two[0]))
        assert found.read_bytes() == expected.read_bytes(), file


def test_a_process_that_is_killed_ends_the_job(tmp_path: Path) -> None:
    command = [sys.executable, str(CHECKOUT / "train.py"), *RUN, *TWO, "method=base", "training.max_epochs=100000"]
    command += ["training.patience=100000", "compare=[]"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not children.exists():
        process.kill()
        process.communicate()
        pytest.skip("this system does not tell a process's children")
    try:
        log = "artifacts/backbone/*.partial/log/metrics.csv"
        wait_until(lambda: list(tmp_path.glob(log)), "the training logs its first epoch", process)
        (other,) = [int(child) for child in children.read_text().split()]
        os.kill(other, signal.SIGKILL)
        process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode != 0
    assert manifests(tmp_path).keys() == {name for name in manifests(tmp_path) if name.startswith("data/")}
