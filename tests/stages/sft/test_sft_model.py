"""The shared, packed prefix gives what whole sequences give; what is frozen stays frozen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3Model
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from support.tiny_model import make_model
from tslrec.llm.item_scaling import standardise_items
from tslrec.llm.packing import PackedExamples
from tslrec.llm.tiny import byte_tokenizer
from tslrec.settings.language_models import LoraConfig
from tslrec.stages.sft.model import PreferenceLLM

SINGLE = {"cpu": 1e-4, "cuda": 5e-4}
ACROSS_DEVICES = 1e-6
"""In float64, but transformers computes the cosines of positions in float32 on each device."""
"""Relative difference of float32 outputs and gradients that differ by the order of their sums, by type of device."""
HISTORIES = [np.array(history) for history in ([3, 1, 4], [1], [5, 9, 2, 6, 5, 3], [5, 8], list(range(1, 18)))]


def examples_of(model: PreferenceLLM, histories: Sequence[NDArray[np.int64]] = HISTORIES) -> PackedExamples:
    """The packed histories on the model's device."""
    return model.packer(histories).to(model.items_ID.device)


def outputs_and_gradients(model: PreferenceLLM) -> tuple[list[Tensor], dict[str, Tensor]]:
    output = model(examples_of(model))
    weights = torch.linspace(-1, 1, output.knowledge_BH.numel(), device=output.knowledge_BH.device)
    summed = (output.knowledge_BH * weights.reshape(output.knowledge_BH.shape)).sum()
    (output.logits_BK.softmax(dim=1).square().sum() + summed).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return [output.knowledge_BH, output.logits_BK], gradients


def in_full_precision(model: PreferenceLLM) -> PreferenceLLM:
    """The model in float64, also inside its norms, which otherwise compute in float32 whatever the dtype."""

    def forward(self: LlamaRMSNorm, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], self.weight, self.variance_epsilon)

    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            setattr(module, "forward", MethodType(forward, module))  # noqa: B010
    return model.double()


def relative_difference(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).detach().norm() / reference.detach().norm())


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_shared_prefix_equals_whole_sequences(dtype: str, device: torch.device) -> None:
    shared, naive = (make_model(shared_prefix=flag, device=device) for flag in (True, False))
    tolerance = 1e-10 if dtype == "float64" else SINGLE[device.type]
    if dtype == "float64":
        shared, naive = in_full_precision(shared), in_full_precision(naive)
    (ours, our_gradients), (references, gradients) = outputs_and_gradients(shared), outputs_and_gradients(naive)
    for one, reference in zip(ours, references, strict=True):
        assert relative_difference(one, reference) < tolerance
    assert len(gradients) == len(shared.trainable_parameters())
    assert our_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert gradient.norm() > 0, name
        assert relative_difference(our_gradients[name], gradient) < tolerance, name


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_bfloat16_gives_what_float32_gives_up_to_its_rounding(shared_prefix: bool, device: torch.device) -> None:
    rounded = make_model(shared_prefix=shared_prefix, device=device, dtype="bfloat16")
    expected, gradients = outputs_and_gradients(make_model(device=device))
    found, rounded_gradients = outputs_and_gradients(rounded)
    assert next(rounded.llm.get_input_embeddings().parameters()).dtype == torch.bfloat16
    # A bfloat16 number has 8 bits: rounding errors of 0.2 to 0.4 % of each of some dozen steps add up.
    for one, reference in zip(found, expected, strict=True):
        assert relative_difference(one.float(), reference) < 0.03
    assert rounded_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert relative_difference(rounded_gradients[name].float(), gradient) < 0.1, name


def test_a_model_on_another_device_equals_the_one_on_the_cpu(device: torch.device) -> None:
    (ours, our_gradients), (references, gradients) = (
        outputs_and_gradients(in_full_precision(make_model(device=each))) for each in (device, torch.device("cpu"))
    )
    for one, reference in zip(ours, references, strict=True):
        assert relative_difference(one.cpu(), reference) < ACROSS_DEVICES
    for name, gradient in gradients.items():
        assert relative_difference(our_gradients[name].cpu(), gradient) < ACROSS_DEVICES, name


def test_another_family_gives_what_its_whole_sequences_give(tmp_path: Path, device: torch.device) -> None:
    numbers: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    numbers |= {"vocab_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    Qwen3Model(Qwen3Config(**numbers)).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    settings: dict[str, Any] = {"random": None, "path": str(tmp_path), "device": device}
    shared, naive = (make_model(shared_prefix=flag, **settings) for flag in (True, False))
    (ours, our_gradients), (references, gradients) = outputs_and_gradients(shared), outputs_and_gradients(naive)
    for one, reference in zip(ours, references, strict=True):
        assert relative_difference(one, reference) < SINGLE[device.type]
    assert our_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert relative_difference(our_gradients[name], gradient) < SINGLE[device.type], name


def test_an_example_does_not_depend_on_its_batch(device: torch.device) -> None:
    model = in_full_precision(make_model(device=device))
    together = model(examples_of(model)).knowledge_BH
    for example, history in enumerate(HISTORIES):
        alone = model(examples_of(model, [history])).knowledge_BH[0]
        torch.testing.assert_close(together[example], alone, rtol=1e-10, atol=1e-12)


def test_a_prefix_can_serve_many_batches(device: torch.device) -> None:
    model = in_full_precision(make_model(device=device))
    prefix = model.run_prefix()
    examples = examples_of(model)
    first, second, fresh = model(examples, prefix), model(examples, prefix), model(examples)
    torch.testing.assert_close(first.knowledge_BH, second.knowledge_BH, rtol=0, atol=0)
    torch.testing.assert_close(first.knowledge_BH, fresh.knowledge_BH, rtol=1e-12, atol=1e-12)


def test_every_item_and_the_order_matter() -> None:
    model = in_full_precision(make_model())
    knowledge_BH = model(model.packer([np.array(h) for h in ([1, 2, 3], [2, 1, 3], [4, 2, 3])])).knowledge_BH
    assert (knowledge_BH[0] - knowledge_BH[1]).abs().max() > 1e-4
    assert (knowledge_BH[0] - knowledge_BH[2]).abs().max() > 1e-4


def test_the_adapted_model_equals_its_base_before_the_first_step() -> None:
    model = make_model(moved=False)
    examples = model.packer(HISTORIES)
    adapted = model(examples).knowledge_BH
    with model.adapted.disable_adapter():
        base = model(examples).knowledge_BH
    torch.testing.assert_close(adapted, base, rtol=0, atol=0)


def test_only_lora_projection_and_head_are_trainable() -> None:
    model = make_model(lora=LoraConfig(rank=2, targets=["q_proj", "v_proj"]))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    lora = [name for name in names if "lora_" in name]
    assert len(lora) == 2 * 2 * 2
    assert all(".q_proj." in name or ".v_proj." in name for name in lora)
    assert set(names) - set(lora) == {f"{n}.{p}" for n in ("item_projection", "group_head") for p in ("weight", "bias")}


def test_projected_items_have_the_spread_of_token_embeddings() -> None:
    model = make_model(moved=False, random={"hidden_size": 256})
    assert model.item_projection is not None
    projected = model.item_projection(model.items_ID[1:])
    tokens = next(model.llm.get_input_embeddings().parameters())
    assert float((projected.std() / tokens.std()).detach()) == pytest.approx(1, rel=0.1)


def test_standardised_items_keep_their_geometry() -> None:
    table_ID = torch.cat([torch.zeros(1, 3), 5 + 0.01 * torch.randn(50, 3) * torch.tensor([1.0, 2.0, 3.0])])
    items_ID = standardise_items(table_ID)
    assert not items_ID[0].any()
    assert float(items_ID[1:].square().mean()) == pytest.approx(1, rel=1e-4)
    distances, originals = torch.pdist(items_ID[1:]), torch.pdist(table_ID[1:])
    torch.testing.assert_close(distances / distances.max(), originals / originals.max(), rtol=1e-3, atol=1e-4)


def test_calibration_centres_and_scales_what_the_head_reads(device: torch.device) -> None:
    model = make_model(device=device)
    examples = examples_of(model)
    knowledge_BH = model(examples).knowledge_BH
    model.calibrate(examples)
    standardised_BH = (knowledge_BH - model.centre_H) / model.spread_H
    torch.testing.assert_close(standardised_BH.mean(dim=0), torch.zeros(32, device=device), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised_BH.std(dim=0), torch.ones(32, device=device), atol=1e-3, rtol=0)
    torch.testing.assert_close(model(examples).knowledge_BH, knowledge_BH, rtol=0, atol=0)


def test_a_single_user_calibrates() -> None:
    model = make_model()
    model.calibrate(model.packer(HISTORIES[:1]))
    assert bool(torch.isfinite(model.spread_H).all())
    assert bool((model.spread_H > 0).all())


def test_the_folded_head_reads_the_knowledge_itself() -> None:
    model = make_model()
    examples = model.packer(HISTORIES)
    model.calibrate(examples)
    output = model(examples)
    folded_BK = model.folded_group_head()(output.knowledge_BH)
    torch.testing.assert_close(folded_BK, output.logits_BK, rtol=1e-4, atol=1e-5)
