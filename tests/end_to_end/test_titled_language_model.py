"""Whole runs whose language model reads titles (`sft.item_input`), and what is refused before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from support.grown_market import COLD, SETTINGS, write_market
from support.in_process import RUN, Ended, train_here
from support.runs import SMALL
from tslrec.knowledge.store import KnowledgeStore
from tslrec.system.manifests import read_manifest

TITLED = ("title", "both")


def run(folder: Path, *overrides: str) -> tuple[Ended, dict[str, Any]]:
    """A run that ends well, and what its record holds of its method."""
    before = set(folder.glob("artifacts/runs/*/result.json"))
    ended = train_here(*overrides, folder=folder)
    assert ended.code == 0, ended.err
    (path,) = set(folder.glob("artifacts/runs/*/result.json")) - before
    (result,) = json.loads(path.read_text())["results"]
    return ended, {**result, "run": path.parent}


def keys(result: dict[str, Any]) -> dict[str, str]:
    return {name: stage["key"] for name, stage in result["stages"].items()}


def inputs(result: dict[str, Any], stage: str) -> dict[str, str]:
    return dict(read_manifest(Path(result["stages"][stage]["folder"]))["inputs"])


def test_titles_change_the_results_from_the_sft_on(tmp_path: Path) -> None:
    _, plain = run(tmp_path, *RUN)
    _, same = run(tmp_path, *RUN, "sft.title_tokens=3", "seed=1")
    assert "titles" not in {**plain, **same}
    assert "titles" not in inputs(plain, "sft")
    found = {}
    for form in TITLED:
        ended, result = run(tmp_path, *RUN, f"sft.item_input={form}", "sft.title_tokens=24")
        # Of generated data, which have titles of their own.
        assert "Titles: 40 of 40 items have one, of data=synthetic itself" in ended.out
        assert result["titles"]["items"] == 40
        before, after = keys(plain), keys(result)
        assert {name for name in before if before[name] != after[name]} == {"sft", "augment", "fusion"}
        for stage in ("sft", "augment"):
            assert inputs(result, stage)["titles"] == result["titles"]["key"]
        heads = load_file(Path(result["stages"]["sft"]["folder"]) / "heads.safetensors")
        assert ("item_projection.weight" in heads) == (form == "both")
        store = KnowledgeStore.open(Path(result["stages"]["augment"]["folder"]))
        assert (store.origin.item_input, store.origin.title_tokens) == (form, 24)
        assert torch.pdist(store.table()[1:41]).min() > 1e-4
        found[form] = after
        again = train_here(*RUN, f"sft.item_input={form}", "sft.title_tokens=24", folder=tmp_path)
        assert again.out.count(": reused, ") == 5
    assert found["title"]["sft"] != found["both"]["sft"]
    _, shorter = run(tmp_path, *RUN, "sft.item_input=both", "sft.title_tokens=3")
    assert keys(shorter)["sft"] != found["both"]["sft"]


@pytest.mark.parametrize("method", ["ablation_untuned_llm", "ablation_unpretrained_llm"])
def test_the_controls_read_items_in_the_same_form(method: str, tmp_path: Path) -> None:
    words = (f"method={method}", *SMALL, "training.max_epochs=1")
    stage = "untuned_llm" if method == "ablation_untuned_llm" else "sft"
    _, plain = run(tmp_path, *words)
    _, titled = run(tmp_path, *words, "sft.item_input=both")
    _, others = run(tmp_path, *words, "sft.item_input=title")
    assert len({keys(each)[stage] for each in (plain, titled, others)}) == 3
    assert inputs(titled, stage)["titles"] == titled["titles"]["key"]
    assert keys(plain)["backbone"] == keys(titled)["backbone"]
    assert titled["config"]["llm"].get("pretrained", True) == (method == "ablation_untuned_llm")


@pytest.mark.parametrize("method", ["tslrec", "ablation_untuned_llm"])
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sft.item_input=both"], "error: data.titles=null: sft.item_input=both reads the items' titles; give"),
        (
            ["sft.item_input=title", "data.titles=none.csv"],
            "error: none.csv: there is no such file, and sft.item_input=",
        ),
        (["sft.item_input=words"], "sft.item_input=words: "),
        (["sft.title_tokens=0"], "sft.title_tokens=0: "),
    ],
)
def test_what_cannot_work_is_refused_before_the_data_are_read(
    method: str, overrides: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, _ = write_market(tmp_path)
    ended = train_here(f"method={method}", *SETTINGS, f"data.path={path}", *overrides, folder=tmp_path)
    assert message in ended.refusal
    assert len(ended.refusal) <= len("error: ") + 300
    assert not list(tmp_path.glob("artifacts/*/*"))


def test_titles_that_are_too_long_for_the_language_model_are_refused(tmp_path: Path) -> None:
    # The tiny language model was made for 2,048 positions.
    words = ("sft.item_input=both", "training.max_len=50")
    line = train_here(*RUN, *words, "sft.title_tokens=200", folder=tmp_path).refusal
    assert "training.max_len=50 items of up to 201 tokens are more than its 2048 positions" in line
    assert "set training.max_len to 9 or less, or lower sft.title_tokens" in line
    assert len(line) <= len("error: ") + 300
    assert not list(tmp_path.glob("artifacts/*/*"))


def write_titles(folder: Path, path: Path, **changed: str) -> Path:
    """Titles of all items of a market but for one of its cold ones."""
    items = sorted(set(pl.read_csv(path)["item"]) - {COLD[1]})
    rows = [f"{item},{changed.get(item, f'{item[-2:]} soap')}" for item in items]
    (folder / "titles.csv").write_text("\n".join(["item_id,title", *rows]) + "\n")
    return folder / "titles.csv"


@pytest.mark.parametrize("form", TITLED)
def test_a_finished_run_goes_on_with_new_items_by_their_titles(form: str, tmp_path: Path) -> None:
    old, grown = write_market(tmp_path)
    titles = write_titles(tmp_path, grown)
    words = ("method=tslrec", *SETTINGS, f"sft.item_input={form}", f"data.titles={titles}")
    _, first = run(tmp_path, *words, f"data.path={old}")
    going_on = (*words, f"data.path={grown}", f"continue_from={first['run']}")
    refused = train_here(*going_on, "sft.item_input=embedding", folder=tmp_path).refusal
    assert f"sft.item_input=embedding: but {first['run']} was trained with {form};" in refused
    _, second = run(tmp_path, *going_on)
    before, after = (KnowledgeStore.open(Path(each["stages"]["augment"]["folder"])) for each in (first, second))
    assert after.num_items > before.num_items
    assert before.origin.titles != after.origin.titles
    numbers = dict(zip(after.index["raw_id"], after.index["item"], strict=True))
    for raw_id, item in zip(before.index["raw_id"], before.index["item"], strict=True):
        there = numbers[raw_id]
        assert torch.equal(before.table()[item : item + 1], after.table()[there : there + 1])
    # A title that is another one now was not what the rows of the store were made from.
    write_titles(tmp_path, grown, item0003="another")
    assert "made with titles " in train_here(*going_on, folder=tmp_path).refusal
