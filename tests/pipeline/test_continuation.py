"""`continue_from` is refused in one line where a run cannot be continued, before anything is computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.grown_market import SETTINGS, write_market
from support.in_process import train_here
from support.runs import manifests
from tslrec.system.files import write_json
from tslrec.system.manifests import MANIFEST, read_manifest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of Base and TSLRec, and the grown data."""
    folder = tmp_path_factory.mktemp("finished")
    write_market(folder)
    common = ("method=tslrec", "compare=[base]", "training.max_epochs=1", f"data.path={folder / 'old.csv'}")
    ended = train_here(*SETTINGS, *common, folder=folder)
    assert ended.code == 0, ended.err
    return folder


def run_of(folder: Path) -> Path:
    (run,) = (folder / "artifacts" / "runs").glob("tslrec-*")
    return run


def refusal(folder: Path, *overrides: str, method: str = "tslrec", run: Path | None = None) -> str:
    """The line in which continuing a run ends; nothing is computed, not even the data are read."""
    before = manifests(folder)
    given = [f"method={method}", f"data.path={folder / 'grown.csv'}", f"continue_from={run or run_of(folder)}"]
    ended = train_here(*SETTINGS, *given, *overrides, folder=folder)
    assert manifests(folder) == before
    return ended.refusal


@pytest.mark.parametrize(
    ("setting", "before"),
    [
        ("model=gru4rec", "sasrec"),
        ("model.num_layers=3", "2"),
        ("model.own_output=True", "False"),
        ("training.max_len=40", "50"),
        ("preferences.num_clusters=5", "4"),
        ("fusion=category", "gate"),
        ("llm.lora.rank=3", "8"),
        ("sft.learning_rate=0.5", "0.001"),
        ("sft.held_back=0.1", "0.0"),
        ("knowledge.layer=1", "last"),
        ("trainer.llm_precision=bf16-mixed", "32-true"),
    ],
)
def test_another_setting_is_refused_with_both_values(setting: str, before: str, finished: Path) -> None:
    line = refusal(finished, setting)
    assert line.startswith(f"error: {setting}: but {run_of(finished)} was trained with {before};")


def test_another_source_model_is_refused(finished: Path) -> None:
    assert "model=gru4rec: but" in refusal(finished, "source_model=gru4rec")


def test_other_weights_of_the_language_model_are_refused(finished: Path) -> None:
    assert "llm.random.hidden_size=64: but" in refusal(finished, "llm.random.hidden_size=64")


@pytest.mark.parametrize(
    ("method", "stage"),
    [("e4srec", "e4srec"), ("ablation_own_embeddings", "own_embeddings"), ("ablation_untuned_llm", "untuned_llm")],
)
def test_a_method_that_cannot_be_continued_is_refused(method: str, stage: str, finished: Path) -> None:
    line = refusal(finished, method=method)
    assert f"method={method} has the stage '{stage}', which cannot be continued" in line


def test_a_method_that_the_run_did_not_have_is_refused(finished: Path) -> None:
    assert "has no method=ci; it has base, tslrec" in refusal(finished, method="ci")
    assert "has no method=ci; it has base, tslrec" in refusal(finished, "compare=[ci]")


def test_a_run_that_is_not_there_is_refused(finished: Path) -> None:
    nowhere = finished / "artifacts" / "runs" / "nowhere"
    assert f"continue_from={nowhere}: no finished run" in refusal(finished, run=nowhere)


def test_a_run_of_other_artifacts_is_refused(finished: Path, tmp_path: Path) -> None:
    copied = tmp_path / "artifacts" / "runs" / "copied"
    shutil.copytree(run_of(finished), copied)
    assert "not a run of artifacts=" in refusal(finished, run=copied)


def damage(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"")


def age(folder: Path) -> None:
    write_json(folder / MANIFEST, {**read_manifest(folder), "version": 1})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shutil.rmtree, "made from fusion {key}, which is not in"),
        (damage, "weights.safetensors: not the bytes its manifest names"),
        (age, "made by version 1 of the stage, now"),
    ],
)
def test_a_result_that_cannot_be_used_is_refused(
    change: Callable[[Path], None], words: str, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    results = json.loads((run_of(folder) / "result.json").read_text())["results"]
    key = results[-1]["stages"]["fusion"]["key"]
    (fusion,) = (folder / "artifacts" / "fusion").glob(f"*-{key[:12]}")
    change(fusion)
    assert words.format(key=key[:12]) in refusal(folder)


def test_numbers_of_the_training_may_change(finished: Path) -> None:
    given = (f"data.path={finished / 'grown.csv'}", f"continue_from={run_of(finished)}", "training.max_epochs=1")
    changed = ("training.learning_rate=0.01", "training.batch_size=64", "metrics=[HR@10,MRR@10]")
    shorter = [setting for setting in SETTINGS if not setting.startswith("training.")]
    ended = train_here(*shorter, "method=base", *given, *changed, folder=finished)
    assert ended.code == 0, ended.err
    assert "Continues" in ended.out
