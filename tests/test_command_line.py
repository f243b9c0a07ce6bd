"""What a person meets at the command line: quick answers, and one line where something is wrong."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import CHECKOUT


def train(*arguments: str, folder: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TSLREC_CACHE": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "train.py"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def assert_one_line(run: subprocess.CompletedProcess[str]) -> str:
    assert run.returncode == 2, run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--cfg", "job"], ["model.hiden_size=3"]], ids=["help", "cfg", "typo"]
)
def test_answers_within_three_seconds(tmp_path: Path, arguments: list[str]) -> None:
    """Alone on the machine; the clock gets more, for other work may hold the cores meanwhile."""
    waited, spent = [], []
    for _ in range(2):
        began, before = time.perf_counter(), processor_seconds()
        train(*arguments, folder=tmp_path)
        waited.append(time.perf_counter() - began)
        spent.append(processor_seconds() - before)
    assert min(spent) < 2
    assert min(waited) < 10


def processor_seconds() -> float:
    """What all processes took that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_names_every_group_and_common_settings(tmp_path: Path) -> None:
    run = train("--help", folder=tmp_path)
    assert run.returncode == 0
    for word in (
        "experiment=quickstart",
        "data.path=FILE",
        "method: ablation_own_embeddings, ",
        " base, ci, ",
        "model: caser, fmlp, gru4rec, sasrec",
    ):
        assert word in run.stdout
    assert max(len(line) for line in run.stdout.splitlines() if ":" not in line) <= 120


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.hiden_size=3"], ["model.hiden_size", "--cfg job"]),
        (["model=sasrecc"], ["sasrecc", "sasrec", "--help"]),
        (["experiment=tslrec_fmlp_bueaty"], ["tslrec_fmlp_bueaty", "tslrec_fmlp_beauty"]),
        (["training.max_len=abc"], ["training.max_len", "abc", "Integer"]),
        (["trainer=gpu"], ["trainer=gpu", "trainer=cpu"]),
        (["trainer.strategy=ddp_spawn"], ["trainer.strategy=ddp_spawn", "set it to ddp"]),
        (["method=ci", "fusion=gate"], ["fusion=gate", "augment"]),
        (["data=csv"], ["data.path"]),
        (["data=csv", "data.path=nowhere.csv", "method=base"], ["nowhere.csv"]),
        (["llm=llama2_13b"], ["meta-llama/Llama-2-13b-hf"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_ends_in_one_line(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    if arguments == ["trainer=gpu"]:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    line = assert_one_line(train(*arguments, folder=tmp_path))
    for word in words:
        assert word in line
    assert not (tmp_path / "artifacts" / "backbone").exists()
