"""The preference SFT on items that are read by their titles, alone or after their embeddings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from support.sft_market import NUM_CLUSTERS, held_back_error, sft_context
from tslrec.data.item_titles import read_item_titles
from tslrec.llm.item_input import ItemInput
from tslrec.llm.tiny import byte_tokenizer
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import read_item_embeddings
from tslrec.stages.registry import find_stage
from tslrec.stages.sft import items as sft_items
from tslrec.stages.sft import stage as sft
from tslrec.stages.sft.items import encode_items
from tslrec.stages.sft.loading import load_trained, new_model
from tslrec.system.errors import UserError
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

TITLED = ("title", "both")
RANDOM = LLMConfig(name="tiny", random={})


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the stage in a folder of the test's own; where it is killed, with a checkpoint after each step."""

    def go(name: str, *callbacks: lightning.Callback, **changes: Any) -> dict[str, Any]:
        context = context_of(tmp_path, name, **changes)
        shutil.rmtree(context.folder)
        often = replace(context.config.trainer, checkpoint_seconds=0 if callbacks else 1e9)
        trainers = StageTrainers(
            often, "sft", context.folder, checkpoints=Checkpoints(tmp_path / f"{name}.checkpoints"), meter=context.meter
        )

        def make_trainer(**settings: Any) -> lightning.Trainer:
            return trainers(**{**settings, "callbacks": [*settings["callbacks"], *callbacks]})

        return sft.run(replace(context, make_trainer=make_trainer))

    return go


def context_of(parent: Path, name: str, **changes: Any) -> StageContext:
    return sft_context(parent, no_trainer, name, **changes)


def no_trainer(**settings: Any) -> lightning.Trainer:
    raise AssertionError("this context trains nothing")


def weights_of(folder: Path) -> dict[str, NDArray[np.float32]]:
    return {**load_file(folder / "adapter" / "adapter_model.safetensors"), **load_file(folder / "heads.safetensors")}


@pytest.mark.parametrize("item_input", TITLED)
def test_it_learns_and_what_is_written_is_what_was_measured(
    item_input: str, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    changes = {"item_input": item_input, "held_back": 0.25, "max_epochs": 4}
    metrics = run("sft", **changes)
    assert metrics["explained_share"] > 0.2
    assert metrics["validation/loss"] == pytest.approx(
        held_back_error(context_of(tmp_path, "sft", **changes)), rel=1e-4
    )
    written = weights_of(tmp_path / "sft")
    assert written["group_head.weight"].shape == (NUM_CLUSTERS, 32)
    assert any(name.startswith("item_projection") for name in written) == (item_input == "both")
    assert metrics["trainable_parameters"] == sum(value.size for value in written.values())


def test_titles_make_the_examples_longer(run: Callable[..., dict[str, Any]]) -> None:
    def tokens(name: str, **changes: Any) -> float:
        return float(run(name, max_epochs=1, **changes)["tokens"])

    alone = tokens("embedding")
    # 96 users, each with the 9 bytes of the response.
    shown = alone - 96 * 9
    assert tokens("title", item_input="title", title_tokens=5) - alone == 4 * shown
    assert tokens("both", item_input="both", title_tokens=5) - alone == 5 * shown


@pytest.mark.parametrize("item_input", TITLED)
def test_a_killed_training_goes_on_to_the_same_weights(
    item_input: str, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    class Kill(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 5:
                raise KilledError

    changes = {"item_input": item_input, "max_epochs": 1}
    whole = run("whole", **changes)
    with pytest.raises(KilledError):
        run("killed", Kill(), **changes)
    killed = run("killed", **changes)
    assert {**killed, "training_seconds": 0} == {**whole, "training_seconds": 0}
    expected = weights_of(tmp_path / "whole")
    found = weights_of(tmp_path / "killed")
    assert found.keys() == expected.keys()
    assert all(np.array_equal(array, expected[name]) for name, array in found.items())


def test_items_are_as_the_setting_says(tmp_path: Path) -> None:
    context = context_of(tmp_path, "sft", item_input="both", title_tokens=3)
    items = sft_items.items_of(context, resolve(RANDOM, tmp_path))
    assert items.titles is not None
    texts = read_item_titles(context.inputs["titles"]).texts
    tokenizer = byte_tokenizer()
    for text, tokens in zip(texts[1:], items.titles[1:], strict=True):
        assert tokenizer.decode(tokens) == f" {text}"[:3]
    assert len(items.titles[0]) == 0


def test_a_title_of_which_nothing_is_left_is_refused_where_nothing_else_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = byte_tokenizer()

    class Deaf:
        bos_token_id = None

        def __call__(self, texts: Any, **settings: Any) -> Any:
            kept = (
                texts.replace("☃", "").rstrip()
                if isinstance(texts, str)
                else [each.replace("☃", "").rstrip() for each in texts]
            )
            return tokenizer(kept, **settings)

    monkeypatch.setattr(sft_items, "load_tokenizer", lambda source: Deaf())
    source, texts = resolve(RANDOM, tmp_path), ["", "soap", "☃"]
    with pytest.raises(UserError, match="makes no tokens of the title '☃'; set it to both"):
        encode_items(source, texts, item_input="title", title_tokens=8)
    both = encode_items(source, texts, item_input="both", title_tokens=8)
    assert both.titles is not None
    assert [len(each) for each in both.titles] == [0, 5, 0]


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    context_of(tmp_path, "sft")
    items = ItemInput(True, [np.array([], dtype=np.int64), np.array([3, 256])])
    with pytest.raises(UserError, match="gives token 256 in a title, the model has 256"):
        new_model(RANDOM, resolve(RANDOM, tmp_path), read_item_embeddings(tmp_path / "backbone"), 4, items)


def test_a_trained_model_of_titles_is_loaded_without_a_projection(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    run("sft", item_input="title", max_epochs=1)
    context = context_of(tmp_path, "sft", item_input="title")
    source = resolve(context.config.llm, tmp_path)
    items = sft_items.items_of(context, source)
    table_ID = read_item_embeddings(context.inputs["backbone"])
    model = load_trained(tmp_path / "sft", context.config.llm, source, table_ID, items)
    assert model.item_projection is None
    assert set(model.trained_layers()) == {"group_head"}


@pytest.mark.parametrize("name", ["sft", "augment", "untuned_llm"])
def test_stages_that_show_items_read_titles_only_where_the_setting_says_so(name: str, tmp_path: Path) -> None:
    stage = find_stage(name)
    assert stage is not None
    plain, titled = (context_of(tmp_path, "sft", **each).config for each in ({}, {"item_input": "both"}))
    assert stage.reads_with(plain) == stage.reads
    assert stage.reads_with(titled) == (*stage.reads, "titles")
    short = context_of(tmp_path, "sft", title_tokens=2).config
    assert stage.settings(short) == stage.settings(plain)
