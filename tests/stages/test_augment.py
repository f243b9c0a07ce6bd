"""The augmentation: each item as a one-item user of the trained model."""

from __future__ import annotations

from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from conftest import make_interactions
from tslrec.config import Config, DataConfig, LLMConfig, LoraConfig, MethodConfig, TrainerConfig
from tslrec.errors import UserError
from tslrec.llm.adapter_files import load_trained, new_model, read_item_embeddings, save_trained
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.source import resolve
from tslrec.stages import augment as stage
from tslrec.stages.augment import augment, autocast, compare_categories
from tslrec.stages.context import StageContext

NUM_ITEMS, NUM_CLUSTERS = 11, 4
LLM = LLMConfig(name="tiny", random={}, lora=LoraConfig(rank=4, alpha=8))


def trained_model(folder: Path) -> PreferenceLLM:
    """A model whose trained parts are not at their start, saved into `sft`, its item embeddings into `backbone`."""
    for name in ("sft", "backbone", "preferences", "augment"):
        (folder / name).mkdir()
    table_ID = np.random.default_rng(0).normal(size=(NUM_ITEMS + 1, 6)).astype(np.float32)
    save_file({"item_embeddings": table_ID}, folder / "backbone" / "item_embeddings.safetensors")
    save_file(
        {"clusters": np.array([-1, *(item % NUM_CLUSTERS for item in range(NUM_ITEMS))])},
        folder / "preferences" / "preferences.safetensors",
    )
    source = resolve(LLM, folder)
    model = new_model(LLM, source, read_item_embeddings(folder / "backbone"), NUM_CLUSTERS)
    torch.manual_seed(1)
    for parameter in model.trainable_parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    save_trained(model, folder / "sft", source)
    return model


def context_of(folder: Path) -> StageContext:
    def no_trainer(**_: object) -> lightning.Trainer:
        raise AssertionError("nothing is trained here")

    config = Config(
        method=MethodConfig("tslrec", ["augment"]),
        data=DataConfig("market", "market", {}),
        model={"name": "sasrec"},
        fusion={},
        llm=LLM,
        trainer=TrainerConfig("cpu"),
        preset="tests",
        cache=str(folder),
    )
    interactions = make_interactions([list(range(1, NUM_ITEMS + 1))])
    inputs = {name: folder / name for name in ("backbone", "preferences", "sft")}
    return StageContext(config, interactions, 0, folder / "augment", inputs, no_trainer)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_each_item_is_a_virtual_user_who_bought_it_alone(batch_size: int, tmp_path: Path) -> None:
    model = trained_model(tmp_path).eval()
    knowledge_IH, categories_IK = augment(model, NUM_ITEMS, batch_size=batch_size)
    for item in range(1, NUM_ITEMS + 1):
        with torch.no_grad():
            alone = model(model.packer([np.array([item])]))
        torch.testing.assert_close(knowledge_IH[item], alone.knowledge_BH[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(categories_IK[item], alone.logits_BK[0].softmax(0), rtol=1e-4, atol=1e-5)


def test_whole_sequences_give_the_same_knowledge(tmp_path: Path) -> None:
    trained_model(tmp_path)
    table_ID = read_item_embeddings(tmp_path / "backbone")
    results = []
    for shared in (True, False):
        llm = LLMConfig(name="tiny", random={}, shared_prefix=shared)
        model = load_trained(tmp_path / "sft", llm, resolve(llm, tmp_path), table_ID)
        results.append(augment(model, NUM_ITEMS, batch_size=4)[0])
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_the_padding_row_is_zero_and_no_other_is(tmp_path: Path) -> None:
    knowledge_IH, categories_IK = augment(trained_model(tmp_path).eval(), NUM_ITEMS, batch_size=4)
    assert not knowledge_IH[0].any()
    assert not categories_IK[0].any()
    assert knowledge_IH[1:].abs().sum(dim=1).min() > 0
    torch.testing.assert_close(categories_IK[1:].sum(dim=1), torch.ones(NUM_ITEMS))


def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path) -> None:
    model = trained_model(tmp_path).eval()
    model.calibrate(model.packer([np.array([1, 2]), np.array([3]), np.array([4])]))
    save_trained(model, tmp_path / "sft", resolve(LLM, tmp_path))
    loaded = load_trained(tmp_path / "sft", LLM, resolve(LLM, tmp_path), read_item_embeddings(tmp_path / "backbone"))
    examples = model.packer([np.array([1, 2, 3]), np.array([4])])
    torch.testing.assert_close(loaded(examples).logits_BK, model(examples).logits_BK, rtol=1e-4, atol=1e-4)
    assert loaded.trainable_parameters() == []


def test_an_adapter_of_another_language_model_is_refused(tmp_path: Path) -> None:
    trained_model(tmp_path)
    deeper = LLMConfig(name="deeper", random={"num_hidden_layers": 3})
    with pytest.raises(ValueError, match="the adapter does not fit"):
        load_trained(tmp_path / "sft", deeper, resolve(deeper, tmp_path), read_item_embeddings(tmp_path / "backbone"))


def test_the_stage_writes_what_the_function_gives(tmp_path: Path) -> None:
    model = trained_model(tmp_path).eval()
    metrics = stage.run(context_of(tmp_path))
    written = load_file(tmp_path / "augment" / "knowledge.safetensors")
    knowledge_IH, categories_IK = augment(model, NUM_ITEMS, batch_size=256)
    np.testing.assert_allclose(written["knowledge"], knowledge_IH.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(written["categories"], categories_IK.numpy(), rtol=1e-5, atol=1e-6)
    assert sum(metrics[case] for case in ("C1", "C2", "C3")) == pytest.approx(1)


def test_values_that_are_not_finite_stop_the_stage(tmp_path: Path) -> None:
    trained_model(tmp_path)
    heads = load_file(tmp_path / "sft" / "heads.safetensors")
    heads["item_projection.bias"][:] = np.nan
    save_file(heads, tmp_path / "sft" / "heads.safetensors")
    with pytest.raises(UserError, match="not finite; use another"):
        stage.run(context_of(tmp_path))


def test_the_three_cases_are_the_papers() -> None:
    categories_IK = torch.tensor(
        [[0.0] * 5, [0.5, 0.2, 0.15, 0.1, 0.05], [0.5, 0.2, 0.15, 0.1, 0.05], [0.5, 0.2, 0.15, 0.1, 0.05]]
    )
    shares = compare_categories(categories_IK, np.array([-1, 0, 2, 3]))
    assert shares == pytest.approx({"C1": 1 / 3, "C2": 1 / 3, "C3": 1 / 3})


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("bf16-true", torch.float32)]
)
def test_mixed_precision_is_lightnings(precision: str, dtype: torch.dtype) -> None:
    with autocast(precision, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
