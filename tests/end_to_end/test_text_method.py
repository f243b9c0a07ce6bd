"""Whole runs of `method=text`: every fusion, the same result after a kill, its recommender, and what it refuses."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from support.in_process import train_here
from support.runs import SMALL, result_of, train, train_until_killed
from tslrec import load
from tslrec.data.formats import synthetic
from tslrec.pipeline.inventory import State, inventory

TEXT = ["method=text", *SMALL, "training.max_epochs=1"]
"""Overrides of a run that takes a few seconds."""

STATES = ["item_text.size=null", "item_text.whitened=false"]
"""The knowledge is the states themselves."""


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every array of the results."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "artifacts").rglob("*.safetensors"))
    }


def results(folder: Path, stage: str) -> int:
    """How many results of a stage there are."""
    return len(list((folder / "artifacts" / stage).glob("*/manifest.json")))


def test_a_run_reads_titles_and_recommends(tmp_path: Path) -> None:
    ended = train_here(*TEXT, "examples=2", folder=tmp_path)
    assert ended.code == 0, ended.err
    (row,) = result_of(tmp_path)["results"]
    stages = row["stages"]
    assert stages.keys() == {"title_states", "item_text", "fusion"}
    states = load_file(Path(stages["title_states"]["folder"]) / "knowledge.safetensors")["knowledge"]
    assert states.shape == (41, 32)
    assert (states[0] == 0).all()
    assert len(states.unique(dim=0)) == 41
    found = load_file(Path(stages["item_text"]["folder"]) / "knowledge.safetensors")["knowledge"]
    assert found.shape == (41, 8)
    assert row["titles"]["missing"] == 0
    (run,) = (tmp_path / "artifacts" / "runs").iterdir()
    recommender = load(run)
    history = recommender.catalogue.items["raw_id"][1:4].to_list()
    assert len(recommender.recommend([history], k=5)) == 5


def test_every_fusion_shares_the_titles_states_and_so_does_every_seed(tmp_path: Path) -> None:
    others = (
        ("seed=3",),
        ("fusion=gate", *STATES, "seed=1"),
        ("fusion=gate", "item_text.control=permuted", "seed=2"),
    )
    for words in others:
        ended = train_here(*TEXT, *words, folder=tmp_path)
        assert ended.code == 0, ended.err
    assert results(tmp_path, "title_states") == 1
    assert results(tmp_path, "item_text") == len(others)
    ended = train_here(*TEXT, "fusion=gate", *STATES, "item_text.layer=1", "item_text.title_tokens=5", folder=tmp_path)
    assert ended.code == 0, ended.err
    assert results(tmp_path, "title_states") == 2


@pytest.mark.slow
def test_a_killed_run_keeps_its_shards_and_gives_the_same_bits(tmp_path: Path) -> None:
    command = [*TEXT, "item_text.shard_size=9", "item_text.batch_size=4"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    assert train_here(*command, folder=whole).code == 0
    train_until_killed(*command, folder=killed, at="title_states/*.checkpoints/shard-00002")
    stopped = [entry for entry in inventory(killed / "artifacts") if entry.state == State.STOPPED]
    assert [(entry.stage, entry.note) for entry in stopped] == [("title_states", "3 of 5 shards")]
    train_until_killed(*command, folder=killed, at="title_states/*.checkpoints/shard-00003", moment="before")
    run = train(*command, folder=killed)
    assert run.returncode == 0, run.stderr
    assert "title_states: resumes after 3 of 5 shards" in run.stdout
    assert digests(killed) == digests(whole)
    (row,) = result_of(killed)["results"]
    metrics = row["stages"]["title_states"]["metrics"]
    assert (metrics["shards"], metrics["shards_found"]) == (5, 3)


def test_data_without_titles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = synthetic.generate
    # Keeps the signature, which the settings of the reader are checked against.
    untitled = functools.wraps(generate)(lambda **settings: replace(generate(**settings), titles=None))
    monkeypatch.setattr(synthetic, "generate", untitled)
    refusal = train_here(*TEXT, folder=tmp_path).refusal
    assert refusal.startswith("error: data.titles=null: method=text reads the items' titles;")
    assert results(tmp_path, "title_states") == 0


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (STATES, "fusion=initial: needs knowledge of model.hidden_size=8"),
        (["item_text.size=9"], "the stage 'item_text' gives 9; set item_text.size=8"),
        (["fusion.scale=0"], "fusion.scale=0"),
        (
            ["fusion=gate", "item_text.size=40", "llm.random.hidden_size=64"],
            "item_text.size=40: 40 items of synthetic have",
        ),
        (["item_text.layer=3"], "item_text.layer=3: llm=tiny has 2 layers"),
        (["item_text.control=permute"], "nearest: permuted"),
    ],
)
def test_what_cannot_work_is_refused_before_a_title_is_read(words: list[str], named: str, tmp_path: Path) -> None:
    refusal = train_here(*TEXT, *words, folder=tmp_path).refusal
    assert named in refusal
    assert len(refusal) <= 320
    assert results(tmp_path, "title_states") == 0
