"""The augmentation: each item as a one-item user of the trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file, save_file

from support.catalogue import LLM, context_of, prepare
from tslrec.knowledge.store import CATEGORIES, KnowledgeStore
from tslrec.llm.adapter import save_trained
from tslrec.llm.item_scaling import Scaling, standardise_items
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig
from tslrec.stages import augment as stage
from tslrec.stages.augment import count_cases
from tslrec.stages.outputs import item_embeddings, read_item_embeddings
from tslrec.stages.sft.loading import load_trained
from tslrec.stages.sft.model import PreferenceLLM
from tslrec.stages.shard_filling import augment, autocast
from tslrec.system.errors import UserError

NUM_ITEMS = 11


def all_items(folder: Path) -> torch.Tensor:
    """As the stage shows them to the model."""
    table = item_embeddings(folder / "backbone")
    return Scaling.of(table)(table[1:])


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_item_is_a_virtual_user_who_bought_it_alone(batch_size: int, tmp_path: Path) -> None:
    model = prepare(tmp_path, NUM_ITEMS).eval()
    with torch.no_grad():
        alone = [model(model.packer([np.array([item])])) for item in range(1, NUM_ITEMS + 1)]
    knowledge_RH, categories_RK = augment(model, all_items(tmp_path), batch_size=batch_size)
    for row, output in enumerate(alone):
        torch.testing.assert_close(knowledge_RH[row], output.knowledge_BH[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(categories_RK[row], output.logits_BK[0].softmax(0), rtol=1e-4, atol=1e-5)


def test_items_are_standardised_as_in_the_training(tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS)
    table_ID = read_item_embeddings(tmp_path / "backbone")
    centred_RD = table_ID[1:] - table_ID[1:].mean(dim=0)
    expected_RD = centred_RD / centred_RD.square().mean().sqrt()
    for standardised_RD in (all_items(tmp_path), standardise_items(table_ID)[1:]):
        torch.testing.assert_close(standardised_RD, expected_RD, rtol=1e-5, atol=1e-6)


def test_whole_sequences_give_the_same_knowledge(tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS)
    results = []
    for shared in (True, False):
        llm = LLMConfig(name="tiny", random={}, shared_prefix=shared)
        model = load_trained(tmp_path / "sft", llm, resolve(llm, tmp_path), torch.zeros(1, 6))
        results.append(augment(model, all_items(tmp_path), batch_size=4)[0])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path) -> None:
    model = prepare(tmp_path, NUM_ITEMS).eval()
    model.calibrate(model.packer([np.array([1, 2]), np.array([3]), np.array([4])]))
    save_trained(model, tmp_path / "sft", resolve(LLM, tmp_path))
    loaded = load_trained(tmp_path / "sft", LLM, resolve(LLM, tmp_path), read_item_embeddings(tmp_path / "backbone"))
    examples = model.packer([np.array([1, 2, 3]), np.array([4])])
    torch.testing.assert_close(loaded(examples).logits_BK, model(examples).logits_BK, rtol=1e-4, atol=1e-4)
    assert loaded.trainable_parameters() == []


def test_an_adapter_of_another_language_model_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS)
    deeper = LLMConfig(name="deeper", random={"num_hidden_layers": 3})
    with pytest.raises(ValueError, match="the adapter does not fit"):
        load_trained(tmp_path / "sft", deeper, resolve(deeper, tmp_path), torch.zeros(1, 6))


def written(folder: Path, **sft: Any) -> KnowledgeStore:
    stage.run(context_of(folder, NUM_ITEMS, **sft))
    return KnowledgeStore.open(folder / "augment")


def loaded_model(folder: Path) -> PreferenceLLM:
    return load_trained(folder / "sft", LLM, resolve(LLM, folder), torch.zeros(1, 6))


@pytest.mark.parametrize("shard_size", [1, 4, 11, 4096])
def test_the_shards_hold_what_the_function_gives(shard_size: int, tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS)
    store = written(tmp_path, augment_shard_size=shard_size)
    assert [shard.rows for shard in store.shards] == [
        min(shard_size, NUM_ITEMS - start) for start in range(0, NUM_ITEMS, shard_size)
    ]
    knowledge_RH, categories_RK = augment(loaded_model(tmp_path), all_items(tmp_path), batch_size=256)
    torch.testing.assert_close(store.table()[1:], knowledge_RH, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(store.table(CATEGORIES)[1:], categories_RK, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(store.table(CATEGORIES)[1:].sum(dim=1), torch.ones(NUM_ITEMS))


def test_the_padding_row_of_the_tables_is_zero_and_no_other_is(tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS)
    store = written(tmp_path, augment_shard_size=4)
    for key in ("knowledge", CATEGORIES):
        table = store.table(key)[0 : NUM_ITEMS + 1]
        assert len(table) == NUM_ITEMS + 1
        assert not table[0].any()
        assert table[1:].abs().sum(dim=1).min() > 0


def test_the_index_leads_from_a_raw_id_to_its_row(tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS)
    store = written(tmp_path, augment_shard_size=4)
    line = store.index.row(by_predicate=pl.col("raw_id") == "i7", named=True)
    assert (line["item"], line["shard"], line["row"]) == (7, 1, 2)
    shard = load_file(tmp_path / "augment" / "knowledge-00001.safetensors")
    np.testing.assert_array_equal(shard["knowledge"][2], store.table()[7:8][0].numpy())
    assert line["category"] == int(shard["categories"][2].argmax())


def test_the_three_cases_are_shares_of_the_items(tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS)
    metrics = stage.run(context_of(tmp_path, NUM_ITEMS, augment_shard_size=4))
    assert sum(metrics[case] for case in ("C1", "C2", "C3")) == pytest.approx(1)
    assert (metrics["shards"], metrics["shards_found"]) == (3, 0)


def test_values_that_are_not_finite_stop_the_stage(tmp_path: Path) -> None:
    prepare(tmp_path, NUM_ITEMS)
    heads = load_file(tmp_path / "sft" / "heads.safetensors")
    heads["item_projection.bias"][:] = np.nan
    save_file(heads, tmp_path / "sft" / "heads.safetensors")
    with pytest.raises(UserError, match="not finite; use another"):
        stage.run(context_of(tmp_path, NUM_ITEMS))


def test_the_three_cases_are_the_papers() -> None:
    categories_RK = torch.tensor([[0.5, 0.2, 0.15, 0.1, 0.05]] * 3)
    assert count_cases(categories_RK, np.array([0, 2, 3])).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("bf16-true", torch.float32)]
)
def test_mixed_precision_is_lightnings(precision: str, dtype: torch.dtype) -> None:
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
