"""Beside a frozen model in bfloat16, what is trained stays in float32, and the training tracks the one in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning
import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from support.sft_market import sft_context
from support.tiny_model import make_model
from tslrec.llm.finetuning import can_fuse
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.sft import stage as sft
from tslrec.stages.sft.module import PreferenceSFTModule
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

HISTORIES = [np.array(history) for history in ([3, 1, 4], [1], [5, 9, 2, 6, 5, 3], [5, 8])]
Trained = tuple[dict[str, Any], PreferenceSFTModule, torch.optim.Optimizer]


class Ending(lightning.Callback):
    """Keeps the module and its optimizer."""

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.module = cast(PreferenceSFTModule, pl_module)
        (self.optimizer,) = trainer.optimizers


def train(folder: Path, dtype: str, precision: str, **changes: Any) -> Trained:
    """Metrics, module and optimizer of a preference SFT on the small market."""
    folder.mkdir()
    ending = Ending()

    def make_trainer(**settings: Any) -> lightning.Trainer:
        config = TrainerConfig("cpu", llm_precision=precision)
        trainers = StageTrainers(config, "sft", folder, checkpoints=Checkpoints(folder / "checkpoints"), meter=Meter())
        return trainers(**{**settings, "callbacks": [*settings["callbacks"], ending]})

    llm = LLMConfig(name="tiny", random={}, lora=LoraConfig(rank=4, alpha=8), dtype=dtype)
    metrics = sft.run(sft_context(folder, make_trainer, "sft", llm, **changes))
    return metrics, ending.module, ending.optimizer


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """A whole training in a dtype, in the precision of the GPU trainers."""
    found: dict[str, Trained] = {}

    def run(dtype: str) -> Trained:
        if dtype not in found:
            found[dtype] = train(tmp_path_factory.mktemp(dtype) / "run", dtype, "32-true")
        return found[dtype]

    return run


def test_only_the_frozen_weights_are_in_bfloat16(trained: Callable[[str], Trained]) -> None:
    _, module, optimizer = trained("bfloat16")
    dtypes = {(parameter.dtype, parameter.requires_grad) for parameter in module.parameters()}
    assert dtypes == {(torch.bfloat16, False), (torch.float32, True)}
    assert {buffer.dtype for buffer in module.buffers() if buffer.is_floating_point()} == {torch.float32}
    states = [state[name].dtype for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert len(states) == 2 * len(module.model.trainable_parameters())
    assert set(states) == {torch.float32}


def test_a_training_in_bfloat16_learns_what_one_in_float32_learns(trained: Callable[[str], Trained]) -> None:
    exact, rounded = trained("float32")[0], trained("bfloat16")[0]
    assert exact["explained_share"] > 0.9
    assert rounded["explained_share"] == pytest.approx(exact["explained_share"], abs=0.06)
    assert rounded["constant_loss"] == exact["constant_loss"]


def test_buffers_keep_their_precision_where_all_weights_are_rounded(tmp_path: Path) -> None:
    _, module, _ = train(tmp_path / "run", "bfloat16", "bf16-true", max_epochs=1)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    floating = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    assert {name.rpartition(".")[2] for name in floating} >= {"inv_freq", "items_ID", "centre_H", "mean_preference_K"}
    assert {buffer.dtype for buffer in floating.values()} == {torch.float32}
    (frequencies,) = (buffer for name, buffer in floating.items() if name.endswith("rotary_emb.inv_freq"))
    exact = make_model().llm.get_buffer("rotary_emb.inv_freq")
    torch.testing.assert_close(frequencies, exact, rtol=0, atol=0)


def test_buffers_have_64_bits_where_all_weights_have(tmp_path: Path) -> None:
    _, module, _ = train(tmp_path / "run", "float32", "64-true", max_epochs=1)
    for numbers in (module.parameters(), module.buffers()):
        assert {each.dtype for each in numbers if each.is_floating_point()} == {torch.float64}


def loss_and_gradients(dtype: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Of the same weights, up to rounding the frozen ones."""
    model = make_model(dtype=dtype)
    # The random model's states hardly differ between users, so that rounding would be all that the head sees.
    loss = (model(model.packer(HISTORIES)).logits_BK.softmax(dim=1) - torch.eye(4)).square().sum()
    loss.backward()
    gradients = {name: cast(Tensor, p.grad) for name, p in model.named_parameters() if p.requires_grad}
    return loss.detach(), gradients


def test_a_step_in_bfloat16_has_the_loss_and_the_gradients_of_one_in_float32() -> None:
    exact, exact_gradients = loss_and_gradients("float32")
    rounded, gradients = loss_and_gradients("bfloat16")
    assert float(rounded) == pytest.approx(float(exact), rel=0.01)
    for name, gradient in exact_gradients.items():
        assert gradients[name].dtype == torch.float32
        assert torch.cosine_similarity(gradients[name].flatten(), gradient.flatten(), dim=0) > 0.99, name


def test_the_products_of_lora_are_in_the_precision_of_the_language_model() -> None:
    model = make_model(dtype="bfloat16")
    seen: list[tuple[torch.dtype, torch.dtype, torch.dtype]] = []

    def note(factor: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0].dtype, cast(nn.Linear, factor).weight.dtype, output.dtype))

    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    factors = [factor for layer in layers for factor in (*layer.lora_A.values(), *layer.lora_B.values())]
    for factor in factors:
        factor.register_forward_hook(note)
    model(model.packer(HISTORIES))
    assert len(seen) == len(factors) == 8
    assert set(seen) == {(torch.bfloat16, torch.float32, torch.bfloat16)}


def test_parameters_on_a_cpu_get_pytorchs_own_choice_of_kernels() -> None:
    trainer = cast(lightning.Trainer, SimpleNamespace(strategy=None, precision="32-true"))
    assert can_fuse(make_model().trainable_parameters(), trainer) is None


def test_the_module_stays_on_its_device_when_lightning_would_move_it(trained: Callable[[str], Trained]) -> None:
    _, module, _ = trained("float32")
    before = module.mean_preference_K
    module.mean_preference_K = before.to("meta")
    try:
        assert module.cpu() is module
        assert module.mean_preference_K.device.type == "meta"
    finally:
        module.mean_preference_K = before
