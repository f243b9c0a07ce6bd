"""Gradient checkpointing gives the same gradients from fewer kept activations, with and without the shared prefix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from support.tiny_model import make_model
from tslrec.settings.language_models import LoraConfig
from tslrec.stages.sft.model import PreferenceLLM

HISTORIES = [np.array(history) for history in ([3, 1, 4], [1], [5, 9, 2, 6, 5, 3], [5, 8], list(range(1, 18)))]
EIGHT_LAYERS = {"num_hidden_layers": 8}


def model_of(**changes: Any) -> PreferenceLLM:
    """A preference model with LoRA dropout, in training mode."""
    return make_model(**{"lora": LoraConfig(rank=2, alpha=4, dropout=0.2), **changes}).train()


def gradients(model: PreferenceLLM) -> dict[str, Tensor]:
    """Gradients of a loss that depends on all of the model's outputs."""
    torch.manual_seed(7)
    output = model(model.packer(HISTORIES))
    (output.logits_BK.square().sum() + output.knowledge_BH.square().sum()).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def kept_bytes(model: PreferenceLLM) -> int:
    """Bytes that the forward pass keeps for the backward pass, without the weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(model.packer(HISTORIES))
    assert output.logits_BK.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_gradients_equal_those_without_checkpointing(shared_prefix: bool) -> None:
    expected = gradients(model_of(shared_prefix=shared_prefix))
    found = gradients(model_of(shared_prefix=shared_prefix, gradient_checkpointing=True))
    assert found.keys() == expected.keys()
    assert len(found) == len(model_of().trainable_parameters())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("shared_prefix", [True, False])
def test_activations_are_recomputed_instead_of_kept(shared_prefix: bool) -> None:
    settings: dict[str, Any] = {"random": EIGHT_LAYERS, "shared_prefix": shared_prefix}
    expected = kept_bytes(model_of(**settings))
    assert kept_bytes(model_of(**settings, gradient_checkpointing=True)) < expected / 4


def test_in_evaluation_a_prefix_serves_many_batches() -> None:
    plain, model = model_of(), model_of(gradient_checkpointing=True)
    plain.eval()
    model.eval()
    with torch.no_grad():
        prefix, expected = model.run_prefix(), plain(plain.packer(HISTORIES)).logits_BK
        for _ in range(2):
            torch.testing.assert_close(model(model.packer(HISTORIES), prefix).logits_BK, expected, rtol=0, atol=0)


def test_a_training_pass_with_a_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot use a key-value cache"):
        model_of(gradient_checkpointing=True).run_prefix()
