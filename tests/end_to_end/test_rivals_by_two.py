"""Two processes (gloo on the CPU) train and test the rival methods' stages as one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.processes import run_together
from support.rival_scenarios import NUM_USERS, STAGES, diverge, outcome, prepare
from support.runs import SMALL, assert_one_line, train

pytestmark = pytest.mark.slow

TWO = ["trainer.devices=2", "trainer.strategy=ddp", "trainer.llm_strategy=ddp"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What both processes made, all stages in one pair of processes; that each raised its error is asserted there."""
    found = tmp_path_factory.mktemp("rivals")
    prepare(found)
    run_together("rival_scenarios.py", str(found))
    return found


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_gives_what_one_process_gives(folder: Path, name: str) -> None:
    one, alone = outcome(folder, name, 1)
    two, together = json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors")
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        # The same sums in float32, in another order; AdamW divides by their roots.
        torch.testing.assert_close(together[key], value, rtol=0, atol=1e-4)
    # Each user is counted once: nobody twice to fill a batch, nobody dropped.
    assert together["ranks.safetensors:users"].tolist() == list(range(NUM_USERS))
    assert two.keys() == one.keys()
    assert two == pytest.approx(one, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", list(STAGES))
def test_one_process_ends_in_the_same_error(folder: Path, name: str) -> None:
    diverge(folder, name, 1)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("method=llamarec", "llm=tiny", "llamarec.learning_rate=1e30", "llamarec.share=0.1"), "ranker"),
        (("method=p5", "t5=laptop", "t5.whole_words=20"), "t5.whole_words=20"),
        (("method=p5_llm", "p5.max_tokens=3", "p5.share=0.1"), "p5.max_tokens=3"),
        (("method=pod", "t5=laptop", "pod.learning_rate=1e30"), "pod"),
    ],
)
def test_an_error_of_both_processes_is_one_line(tmp_path: Path, words: tuple[str, ...], named: str) -> None:
    line = assert_one_line(train(*SMALL, *words, *TWO, folder=tmp_path))
    assert named in line
    assert not [path for path in (tmp_path / "artifacts").glob("*/*/manifest.json") if path.parts[-3] == named]
