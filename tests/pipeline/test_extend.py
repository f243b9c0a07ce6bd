"""`tslrec extend`: a store takes the new items of a grown catalogue, and what does not fit is refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from support.catalogue import LLM, context_of, embeddings, prepare
from tslrec.cli.main import main
from tslrec.knowledge.store import CATEGORIES, KnowledgeStore
from tslrec.llm.readout import PAPER_READOUT, Readout
from tslrec.llm.weights_source import resolve
from tslrec.pipeline.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.settings.preference_sft import KnowledgeConfig
from tslrec.stages import augment, shard_filling
from tslrec.stages.registry import code_version
from tslrec.system.files import write_json
from tslrec.system.manifests import read_manifest

OLD, NEW = 11, 6
ALL = OLD + NEW
FACTS = {"created": "2026-01-02T03:04:05+00:00", "wall_seconds": 12.0, "peak_memory_gib": 0.5}


def store_of(folder: Path, num_items: int, reading: Readout = PAPER_READOUT) -> Path:
    """A finished store in a folder of artifacts, with what it was made from."""
    prepare(folder / "made", num_items)
    root = ArtifactStore(folder / "artifacts")
    inputs: dict[str, Artifact] = {}
    for stage in ("backbone", "preferences", "sft"):

        def copy(output: Path, stage: str = stage) -> dict[str, Any]:
            shutil.copytree(folder / "made" / stage, output, dirs_exist_ok=True)
            return {}

        inputs[stage] = root.produce(Recipe(stage, "market", {}), copy, lambda: FACTS)
    llm = {name: value for name, value in asdict(LLM).items() if name != "shape"}
    config = {"llm": llm, "weights": resolve(LLM, folder).identity, "precision": "32-true"}
    keys = {stage: artifact.key for stage, artifact in inputs.items()}
    recipe = Recipe("augment", "market", config, keys, seed=0, version=code_version("augment") or 0)

    def compute(output: Path) -> dict[str, Any]:
        context = context_of(folder / "made", num_items, output, root.checkpoints(recipe), augment_shard_size=4)
        context.config.knowledge = KnowledgeConfig(reading.layer, reading.position)
        return augment.run(replace(context, inputs={stage: each.folder for stage, each in inputs.items()}))

    return root.produce(recipe, compute, lambda: FACTS).folder


def grown(folder: Path, order: list[int] | None = None) -> list[str]:
    """Writes the grown catalogue, its items in an order; returns the options that name it."""
    order = order or list(range(1, ALL + 1))
    table_ID = embeddings(ALL)[[0, *order]]
    save_file({"item_embeddings": table_ID}, folder / "grown.safetensors")
    pl.DataFrame({"raw_id": ["", *(f"i{item}" for item in order)]}).write_parquet(folder / "grown.parquet")
    return ["--items", str(folder / "grown.parquet"), "--item-embeddings", str(folder / "grown.safetensors")]


def extended(store: Path) -> KnowledgeStore:
    (folder,) = (path for path in store.parent.iterdir() if path.is_dir() and path != store)
    return KnowledgeStore.open(folder)


def rows_of(store: KnowledgeStore, key: str, raw_ids: list[str]) -> Tensor:
    numbers = dict(zip(store.index["raw_id"], store.index["item"], strict=True))
    return torch.cat([store.table(key)[numbers[raw_id] : numbers[raw_id] + 1] for raw_id in raw_ids])


@pytest.mark.parametrize("shuffled", [False, True])
def test_only_new_items_are_computed_and_old_rows_stay_to_the_bit(
    shuffled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path, OLD)
    computed: list[int] = []
    really = shard_filling.augment

    def spy(model: Any, items_RD: Tensor, **settings: Any) -> Any:
        computed.append(len(items_RD))
        return really(model, items_RD, **settings)

    monkeypatch.setattr(shard_filling, "augment", spy)
    order = np.random.default_rng(0).permutation(np.arange(1, ALL + 1)).tolist() if shuffled else None
    main(["extend", str(store), *grown(tmp_path, order), f"cache={tmp_path}", "sft.augment_shard_size=4"])
    assert computed == [4, 2]
    assert f"{OLD} items taken over, {NEW} computed: " in capsys.readouterr().out

    before, after = KnowledgeStore.open(store), extended(store)
    assert after.num_items == ALL
    old = [f"i{item}" for item in range(1, OLD + 1)]
    for key in ("knowledge", CATEGORIES):
        assert torch.equal(rows_of(after, key, old), before.table(key)[1 : OLD + 1])
    # The new rows are what the same model, with the same scaling, makes of their embeddings.
    new = [item for item in order or range(1, ALL + 1) if item > OLD]
    standardised = before.scaling(torch.from_numpy(embeddings(ALL)[new]))
    knowledge_RH, _ = really(loaded_model(tmp_path), standardised, batch_size=256)
    raw_ids = [f"i{item}" for item in new]
    torch.testing.assert_close(rows_of(after, "knowledge", raw_ids), knowledge_RH, rtol=1e-5, atol=1e-6)


def test_new_items_are_read_where_the_old_ones_were(tmp_path: Path) -> None:
    reading = Readout("1", "item")
    store = store_of(tmp_path, OLD, reading)
    main(["extend", str(store), *grown(tmp_path), f"cache={tmp_path}"])
    after = extended(store)
    new = list(range(OLD + 1, ALL + 1))
    items_RD = after.scaling(torch.from_numpy(embeddings(ALL)[new]))
    knowledge_RH, _ = shard_filling.augment(loaded_model(tmp_path), items_RD, batch_size=256, reading=reading)
    torch.testing.assert_close(after.table()[OLD + 1 : ALL + 1], knowledge_RH, rtol=1e-5, atol=1e-6)
    assert after.origin.reading == {"layer": "1", "position": "item"}


def loaded_model(folder: Path) -> Any:
    from tslrec.stages.sft.loading import load_trained

    return load_trained(folder / "made" / "sft", LLM, resolve(LLM, folder), torch.zeros(1, 6))


def test_a_second_time_nothing_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path, OLD)
    command = ["extend", str(store), *grown(tmp_path), f"cache={tmp_path}"]
    main(command)
    monkeypatch.setattr(shard_filling, "augment", None)
    main(command)
    assert f"{NEW} computed earlier: " in capsys.readouterr().out


def test_an_extended_store_is_extended_again(tmp_path: Path) -> None:
    store = store_of(tmp_path, OLD)
    main(["extend", str(store), *grown(tmp_path, list(range(1, OLD + 3))), f"cache={tmp_path}"])
    first = extended(store)
    main(["extend", str(first.folder), *grown(tmp_path), f"cache={tmp_path}"])
    (second,) = (path for path in store.parent.iterdir() if path.is_dir() and path not in (store, first.folder))
    assert read_manifest(second)["metrics"]["items_computed"] == NEW - 2
    again = KnowledgeStore.open(second)
    assert torch.equal(again.table()[1 : OLD + 3], first.table()[1 : OLD + 3])


def refused(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The one line that a command ends in."""
    with pytest.raises(SystemExit) as ended:
        main(list(command))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def change_adapter(store: Path) -> None:
    """Another adapter under the same key, its manifest knowing no better."""
    (folder,) = (store.parent.parent / "sft").glob("market-*/")
    heads = load_file(folder / "heads.safetensors")
    heads["group_head.bias"] += 1
    save_file(heads, folder / "heads.safetensors")
    manifest = read_manifest(folder)
    write_json(folder / "manifest.json", {**manifest, "files": {}})


def change_origin(store: Path, **values: Any) -> None:
    """Another origin in the store's own file, its manifest knowing no better."""
    value = json.loads((store / "store.json").read_text())
    write_json(store / "store.json", {**value, "origin": {**value["origin"], **values}})
    manifest = read_manifest(store)
    write_json(store / "manifest.json", {**manifest, "files": {}})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("adapter", change_adapter),
        ("prompt", lambda store: change_origin(store, prompt=["Say", "it:"])),
        ("num_clusters", lambda store: change_origin(store, num_clusters=5)),
        ("centroids", lambda store: change_origin(store, centroids="other")),
        ("base_model", lambda store: change_origin(store, base_model={"kind": "hub", "name": "other"})),
    ],
)
def test_a_store_made_with_something_else_is_refused_with_both_values(
    name: str, change: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path, OLD)
    change(store)
    line = refused(capsys, "extend", str(store), *grown(tmp_path), f"cache={tmp_path}")
    assert re.search(rf": made with {name} .+, but here it is .+;", line)
    assert [path for path in store.parent.iterdir() if path.is_dir()] == [store]


def test_old_items_that_moved_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path, OLD)
    options = grown(tmp_path)
    table_ID = load_file(tmp_path / "grown.safetensors")["item_embeddings"]
    table_ID[3, 0] = np.nextafter(table_ID[3, 0], np.float32(9))
    save_file({"item_embeddings": table_ID}, tmp_path / "grown.safetensors")
    line = refused(capsys, "extend", str(store), *options, f"cache={tmp_path}")
    assert re.search(r"made with item_embeddings [0-9a-f]{12}, but here it is [0-9a-f]{12};", line)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (list(range(2, ALL + 1)), "has 1 items that the catalogue lacks, i1 for one"),
        (list(range(1, OLD + 1)), "has every item of the catalogue already"),
        ([*range(1, ALL + 1), 3], "a raw_id occurs twice"),
    ],
)
def test_a_catalogue_that_does_not_fit_is_refused(
    items: list[int], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path, OLD)
    assert words in refused(capsys, "extend", str(store), *grown(tmp_path, items), f"cache={tmp_path}")


def test_what_the_store_decides_cannot_be_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "extend", str(tmp_path), "--items", "x", "--item-embeddings", "y", "llm=tiny")
    assert "llm=tiny: a store is extended as it was made" in line


def test_a_folder_that_is_no_store_is_not_to_be_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path, OLD)
    line = refused(capsys, "extend", str(store.parents[1]), *grown(tmp_path), f"cache={tmp_path}")
    assert "no knowledge store; name the folder of one" in line
    assert "delete" not in line
