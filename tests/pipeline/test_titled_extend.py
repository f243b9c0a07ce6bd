"""`tslrec extend` of a store whose language model read titles: new items need theirs, and old titles must be as before.

The store and the catalogue are those of `test_extend`.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import save_file

from support.catalogue import LLM, TITLE_TOKENS, context_of, embeddings, prepare, title
from tslrec.cli.main import main
from tslrec.knowledge.store import KnowledgeStore
from tslrec.llm.weights_source import resolve
from tslrec.pipeline.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.stages import augment, shard_filling
from tslrec.stages.registry import code_version
from tslrec.stages.sft.items import encode_items
from tslrec.stages.sft.loading import load_trained

OLD, NEW = 7, 4
ALL = OLD + NEW
FACTS = {"created": "2026-01-02T03:04:05+00:00", "wall_seconds": 12.0, "peak_memory_gib": 0.5}


def store_of(folder: Path, item_input: str) -> Path:
    """A finished store in a folder of artifacts, with what it was made from."""
    prepare(folder / "made", OLD, item_input)
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
        sft = {"item_input": item_input, "title_tokens": TITLE_TOKENS, "augment_shard_size": 4}
        context = context_of(folder / "made", OLD, output, root.checkpoints(recipe), **sft)
        kept = {name: path for name, path in context.inputs.items() if name == "titles"}
        kept |= {stage: each.folder for stage, each in inputs.items()}
        return augment.run(replace(context, inputs=kept))

    return root.produce(recipe, compute, lambda: FACTS).folder


def command(folder: Path, store: Path, order: list[int], titles: dict[int, str] | None = None) -> list[str]:
    """The command line that extends the store to the items in an order; with their titles, if they are given."""
    save_file({"item_embeddings": embeddings(ALL)[[0, *order]]}, folder / "grown.safetensors")
    pl.DataFrame({"raw_id": ["", *(f"i{item}" for item in order)]}).write_parquet(folder / "grown.parquet")
    words = ["extend", str(store), "--items", str(folder / "grown.parquet")]
    words += ["--item-embeddings", str(folder / "grown.safetensors"), f"cache={folder}"]
    if titles is None:
        return words
    rows = [f'i{item},"{text}"' for item, text in titles.items()]
    (folder / "titles.csv").write_text("\n".join(["item_id,title", *rows]) + "\n")
    return [*words, "--titles", str(folder / "titles.csv")]


def given(**changed: str) -> dict[int, str]:
    return {item: changed.get(f"i{item}", title(item)) for item in range(1, ALL + 1)}


def extended(store: Path) -> KnowledgeStore:
    (folder,) = (path for path in store.parent.iterdir() if path.is_dir() and path != store)
    return KnowledgeStore.open(folder)


@pytest.mark.parametrize("item_input", ["title", "both"])
def test_new_items_are_read_by_their_titles_and_old_rows_stay_to_the_bit(item_input: str, tmp_path: Path) -> None:
    store = store_of(tmp_path, item_input)
    order = np.random.default_rng(0).permutation(np.arange(1, ALL + 1)).tolist()
    main(command(tmp_path, store, order, given()))
    before, after = KnowledgeStore.open(store), extended(store)
    places = {item: place for place, item in enumerate(order, start=1)}
    for item in range(1, OLD + 1):
        assert torch.equal(after.table()[places[item] : places[item] + 1], before.table()[item : item + 1])

    source = resolve(LLM, tmp_path)
    texts = ["", *(title(item) for item in range(1, ALL + 1))]
    items = encode_items(source, texts, item_input=item_input, title_tokens=TITLE_TOKENS)
    model = load_trained(tmp_path / "made" / "sft", LLM, source, torch.zeros(1, 6), items)
    new = np.arange(OLD + 1, ALL + 1)
    items_RD = before.scaling(torch.from_numpy(embeddings(ALL)[new]))
    knowledge_RH, _ = shard_filling.augment(model, items_RD, batch_size=256, items_R=new)
    found_RH = torch.cat([after.table()[places[item] : places[item] + 1] for item in new.tolist()])
    torch.testing.assert_close(found_RH, knowledge_RH, rtol=1e-5, atol=1e-6)
    assert after.origin.titles != before.origin.titles
    assert (after.origin.item_input, after.origin.title_tokens) == (item_input, TITLE_TOKENS)


def refused(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    """The one line that a command ends in."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) <= len("error: ") + 300
    return line


def test_without_titles_or_with_others_it_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, order = store_of(tmp_path, "both"), list(range(1, ALL + 1))
    assert "made with sft.item_input=both, so new items need titles; give --titles FILE" in refused(
        capsys, command(tmp_path, store, order)
    )
    line = refused(capsys, command(tmp_path, store, order, given(i3="another")))
    assert "made with titles " in line
    line = refused(capsys, [*command(tmp_path, store, order), "--titles", str(tmp_path / "none.csv")])
    assert "none.csv" in line
    (tmp_path / "others.csv").write_text("item_id,title\nx,Soap\n")
    line = refused(capsys, [*command(tmp_path, store, order), "--titles", str(tmp_path / "others.csv")])
    assert "has no row of any of the 11 items" in line
    assert [path for path in store.parent.iterdir() if path.is_dir()] == [store]


def test_a_store_of_embeddings_needs_no_titles_and_takes_no_notice_of_them(tmp_path: Path) -> None:
    store = store_of(tmp_path, "embedding")
    main(command(tmp_path, store, list(range(1, ALL + 1)), given()))
    assert extended(store).origin.titles is None
