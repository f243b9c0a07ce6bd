"""The augmentation of items that are read by their titles, alone or after their embeddings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.catalogue import LLM, TITLE_TOKENS, context_of, prepare, raw_ids, title
from tslrec.data.item_titles import write_texts
from tslrec.knowledge.origin import Origin
from tslrec.knowledge.single_file import read_knowledge
from tslrec.knowledge.store import CATEGORIES, KnowledgeStore
from tslrec.llm.readout import Readout
from tslrec.stages import augment as stage
from tslrec.stages import shard_filling
from tslrec.stages.ablations import untuned_llm
from tslrec.stages.context import StageContext
from tslrec.stages.fusion_inputs import Sources, open_store
from tslrec.system.errors import UserError

NUM_ITEMS = 11
TITLED = ("title", "both")
NEW_FIELDS = {"item_input", "title_tokens", "titles"}


def titled_context(folder: Path, item_input: str, **sft: Any) -> StageContext:
    return context_of(folder, NUM_ITEMS, item_input=item_input, **{"title_tokens": TITLE_TOKENS, **sft})


@pytest.mark.parametrize("position", ["response", "item"])
@pytest.mark.parametrize("item_input", TITLED)
@torch.no_grad()
def test_the_shards_hold_what_each_item_gives_alone(item_input: str, position: str, tmp_path: Path) -> None:
    model = prepare(tmp_path, NUM_ITEMS, item_input).eval()
    context = titled_context(tmp_path, item_input, augment_shard_size=4, augment_batch_size=3)
    context.config.knowledge.position = position
    stage.run(context)
    store = KnowledgeStore.open(tmp_path / "augment")
    reading = Readout("last", position)
    for item in range(1, NUM_ITEMS + 1):
        alone = model.forward_with_readout(model.packer([np.array([item])]), None, reading)
        torch.testing.assert_close(store.table()[item : item + 1], alone.knowledge_BH, rtol=1e-4, atol=1e-5)
        categories_BK = alone.logits_BK.softmax(dim=1)
        torch.testing.assert_close(store.table(CATEGORIES)[item : item + 1], categories_BK, rtol=1e-4, atol=1e-5)
    rows = store.table()[1 : NUM_ITEMS + 1]
    assert torch.pdist(rows).min() > 1e-3
    open_store(tmp_path / "augment", Sources(context.config, context.interactions, context.inputs))


@pytest.mark.parametrize("item_input", TITLED)
def test_a_killed_augmentation_goes_on_to_the_same_rows(
    item_input: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    prepare(tmp_path, NUM_ITEMS, item_input)
    context = titled_context(tmp_path, item_input, augment_shard_size=4)
    stage.run(context)
    whole = KnowledgeStore.open(tmp_path / "augment").table()[0 : NUM_ITEMS + 1]
    computed: list[list[int]] = []
    really = shard_filling.augment

    def dying(*given: Any, **settings: Any) -> Any:
        if len(computed) == 2:
            raise KilledError
        computed.append(settings["items_R"].tolist())
        return really(*given, **settings)

    killed = replace(titled_context(tmp_path, item_input, augment_shard_size=4), folder=tmp_path / "again")
    killed.folder.mkdir()
    killed = replace(killed, checkpoints=type(killed.checkpoints)(tmp_path / "again.checkpoints"))
    monkeypatch.setattr(shard_filling, "augment", dying)
    with pytest.raises(KilledError):
        stage.run(killed)
    assert computed == [[1, 2, 3, 4], [5, 6, 7, 8]]
    monkeypatch.setattr(shard_filling, "augment", really)
    assert stage.run(killed)["shards_found"] == 2
    assert torch.equal(KnowledgeStore.open(tmp_path / "again").table()[0 : NUM_ITEMS + 1], whole)


def test_another_form_or_another_title_is_another_origin(tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS, "both")
    context = titled_context(tmp_path, "both", augment_shard_size=4)
    stage.run(context)
    for changes, message in (
        ({"item_input": "embedding"}, r"made with item_input both, but here it is embedding;"),
        ({"title_tokens": 4}, r"made with title_tokens 5, but here it is 4;"),
    ):
        with pytest.raises(UserError, match=message):
            stage.run(titled_context(tmp_path, **{"item_input": "both", **changes}))  # type: ignore[arg-type]
    texts = [title(item) for item in range(1, NUM_ITEMS + 1)]
    write_texts(["8, a new title", *texts[1:]], [False] * NUM_ITEMS, raw_ids(NUM_ITEMS), tmp_path)
    with pytest.raises(UserError, match=r"made with titles [0-9a-f]{12}, but here it is [0-9a-f]{12};"):
        stage.run(titled_context(tmp_path, "both"))


def test_a_store_without_titles_says_nothing_of_them_and_older_ones_are_read(tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS)
    stage.run(context_of(tmp_path, NUM_ITEMS))
    value = json.loads((tmp_path / "augment" / "store.json").read_text())["origin"]
    assert not NEW_FIELDS & value.keys()
    origin = Origin.from_json(value)
    assert (origin.item_input, origin.title_tokens, origin.titles) == ("embedding", None, None)
    assert origin.as_json() == {**value, "prompt": tuple(value["prompt"])}
    with_titles = replace(origin, item_input="both", title_tokens=8, titles="f" * 64)
    assert with_titles.as_json().keys() > NEW_FIELDS
    assert Origin.from_json(json.loads(json.dumps(with_titles.as_json()))) == with_titles


@pytest.mark.parametrize("item_input", TITLED)
def test_the_untuned_model_reads_items_in_the_same_form(item_input: str, tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS, item_input)
    rows = []
    for form in ("embedding", item_input):
        context = titled_context(tmp_path, form)
        context.config.llm = LLM
        context = replace(context, folder=tmp_path / f"untuned-{form}")
        context.folder.mkdir()
        torch.manual_seed(0)
        assert untuned_llm.run(context) == {}
        rows.append(read_knowledge(context.folder)[0 : NUM_ITEMS + 1])
    assert not torch.equal(*rows)
    assert torch.pdist(rows[1][1:]).min() > 1e-4
    assert untuned_settings(titled_context(tmp_path, item_input))["sft"]["item_input"] == item_input
    assert "sft" not in untuned_settings(titled_context(tmp_path, "embedding"))


def untuned_settings(context: StageContext) -> dict[str, Any]:
    from tslrec.stages.key_settings import untuned_llm_settings

    return untuned_llm_settings(context.config)
