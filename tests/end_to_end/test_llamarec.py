"""Whole runs of `method=llamarec`: its rows, its recommender, what it refuses, and a run that was killed."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from support.in_process import train_here
from support.runs import SMALL, result_of, train, train_until_killed
from tslrec import load
from tslrec.data.formats import synthetic
from tslrec.data.item_titles import read_item_titles

pytestmark = pytest.mark.slow

LLAMAREC = [
    "method=llamarec",
    *SMALL,
    "llamarec.share=0.1",
    "llamarec.title_tokens=8",
    "llamarec.history=5",
    "llamarec.candidates=8",
    "llamarec.steps_per_epoch=2",
]
"""Overrides of a run that takes some seconds: a prompt of the byte tokenizer is long."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of LlamaRec and of its retriever."""
    folder = tmp_path_factory.mktemp("runs")
    ended = train_here(*LLAMAREC, "compare=[base]", folder=folder)
    assert ended.code == 0, ended.err
    (folder / "printed").write_text(ended.out)
    return folder


def test_it_ranks_what_its_backbone_retrieved(runs: Path) -> None:
    rows = {row["method"]: row for row in result_of(runs)["results"]}
    assert rows.keys() == {"base", "llamarec"}
    found, before = rows["llamarec"]["metrics"], rows["base"]["metrics"]
    assert found.keys() >= before.keys()
    # Reranking eight items changes no rank behind them, so no hit at ten is lost or won but by a tie.
    assert found["test/masked/HR@10"] == pytest.approx(before["test/masked/HR@10"])
    assert found["retrieved/masked"] <= found["test/masked/HR@10"]
    assert found["missing_titles"] == 0
    assert rows["llamarec"]["llm"] == "tiny (random weights)"
    # The retriever is LRURec unless the command line names another one; a compared method has the same backbone.
    assert {row["model"] for row in rows.values()} == {"lru"}
    assert rows["llamarec"]["stages"]["backbone"]["key"] == rows["base"]["stages"]["backbone"]["key"]


def test_its_closing_table_says_what_there_was_to_rank(runs: Path) -> None:
    (row,) = (each for each in result_of(runs)["results"] if each["method"] == "llamarec")
    found, printed = row["metrics"], " ".join((runs / "printed").read_text().split())
    users = f"{found['retrieved/masked']:.1%} of {found['test/users']:,} users"
    assert f"LlamaRec: target among the first 8 of lru for {users}" in printed
    assert f"not masked {found['retrieved/unmasked']:.1%}; {found['reranked_users']:,} users' lists reranked" in printed
    assert f"{found['instances']:,} training instances, a share of 0.1; 0 items without a title" in printed
    assert row["titles"]["missing"] == 0
    assert row["titles"]["items"] > 0


def test_the_titles_of_generated_data_are_theirs_and_a_file_gives_others(runs: Path, tmp_path: Path) -> None:
    (row,) = (each for each in result_of(runs)["results"] if each["method"] == "llamarec")
    shown = load(next((runs / "artifacts" / "runs").iterdir()), method="llamarec").catalogue.items
    own = dict(shown.slice(1).select("raw_id", "title").iter_rows())
    assert read_item_titles(Path(row["titles"]["folder"])).texts == ["", *own.values()]
    assert all(title.startswith("category ") for title in own.values())
    path = tmp_path / "titles.csv"
    path.write_text(f"item_id,title\n{next(iter(own))},Another\n")
    ended = train_here(*LLAMAREC, f"data.titles={path}", "llamarec.share=0.01", folder=tmp_path)
    assert ended.code == 0, ended.err
    (other,) = result_of(tmp_path)["results"]
    assert other["metrics"]["missing_titles"] == len(own) - 1
    assert other["stages"]["backbone"]["key"] == row["stages"]["backbone"]["key"]
    assert other["titles"]["key"] != row["titles"]["key"]


def test_generated_data_without_titles_are_refused_once_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = synthetic.generate
    # Keeps the signature, which the settings of the reader are checked against.
    untitled = functools.wraps(generate)(lambda **settings: replace(generate(**settings), titles=None))
    monkeypatch.setattr(synthetic, "generate", untitled)
    refusal = train_here(*LLAMAREC, folder=tmp_path).refusal
    assert refusal.startswith("error: data.titles=null: method=llamarec reads the items' titles;")
    assert not list((tmp_path / "artifacts").glob("backbone/*"))


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("llamarec.candidates=27", "llamarec.candidates=27"),
        ("llamarec.candidates=1", "llamarec.candidates=1"),
        ("llamarec.share=0", "llamarec.share=0"),
        ("llamarec.max_tokens=10", "llamarec.max_tokens=10"),
        ("llamarec.lora.targets=[]", "llamarec.lora.targets"),
        ("llamarec.lora.targets=[qproj]", "nearest: q_proj"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, setting: str, named: str) -> None:
    refusal = train_here(*LLAMAREC, setting, folder=tmp_path).refusal
    assert named in refusal
    assert len(refusal) <= 320
    assert not list((tmp_path / "artifacts").glob("*/*/manifest.json"))


def test_a_killed_run_goes_on_to_the_same_bits(runs: Path, tmp_path: Path) -> None:
    command = [*LLAMAREC, "trainer.checkpoint_seconds=0"]
    train_until_killed(*command, folder=tmp_path, at="ranker/*.checkpoints/step-*", step=3)
    again = train(*command, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    for name in ("adapter/adapter_model.safetensors", "ranks.safetensors"):
        (one,), (other,) = ((folder / "artifacts").glob(f"ranker/*/{name}") for folder in (runs, tmp_path))
        whole, resumed = load_file(one), load_file(other)
        assert whole.keys() == resumed.keys()
        assert all((whole[key] == resumed[key]).all() for key in whole)
