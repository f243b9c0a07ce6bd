"""The moving average of the weights: its numbers, and who sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn

from scenarios import MAX_LEN, NUM_ITEMS, SIZE, data_module, market
from tslrec.averaging import AveragedWeights, trained_weights
from tslrec.backbones.sasrec import SASRec
from tslrec.config import TrainerConfig
from tslrec.item_embedding import IdEmbedding
from tslrec.stages.next_item import NextItemModule
from tslrec.stages.selection import selection_callbacks
from tslrec.trainers import StageTrainers


class Recorder(lightning.Callback):
    """The weights after each step, and those that each validation begins and ends with."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.validated: list[tuple[int, dict[str, Tensor]]] = []

    def copy(self, module: nn.Module) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in trained_weights(module)}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.steps.append(self.copy(pl_module))

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.steps:
            # A validation in between has left the training's own weights.
            torch.testing.assert_close(self.copy(pl_module), self.steps[-1], rtol=0, atol=0)

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.validated.append((len(self.steps), self.copy(pl_module)))


def average(steps: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    """By its definition, in float64."""
    found = {name: value.double() for name, value in steps[0].items()}
    for number, step in enumerate(steps):
        kept = min(decay, (1 + number) / (10 + number))
        found = {name: kept * value + (1 - kept) * step[name].double() for name, value in found.items()}
    return {name: value.float() for name, value in found.items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorder, Any]:
    lightning.seed_everything(5, verbose=False)
    data = data_module(market(31), all_positions=True, packed=True)
    backbone = SASRec(IdEmbedding(NUM_ITEMS, SIZE), 100, MAX_LEN)
    module = NextItemModule(backbone, learning_rate=1e-2, weight_decay=0.0)
    recorder = Recorder()
    best, callbacks = selection_callbacks("masked", patience=10, averaging=0.7)
    folder: Path = tmp_path_factory.mktemp("stage")
    trainer = StageTrainers(TrainerConfig("cpu"), "test", folder)(max_epochs=4, callbacks=[*callbacks, recorder])
    trainer.fit(module, data)
    return recorder, best


def test_validations_see_the_average(trained: tuple[Recorder, Any]) -> None:
    recorder, _ = trained
    assert len(recorder.steps) >= 12
    seen = {step for step, _ in recorder.validated}
    assert len(seen) == 4
    for step, weights in recorder.validated:
        torch.testing.assert_close(weights, average(recorder.steps[:step], 0.7), rtol=1e-5, atol=1e-6)


def test_the_best_average_is_kept(trained: tuple[Recorder, Any]) -> None:
    recorder, best = trained
    steps = len(recorder.steps) // 4 * (best.epoch + 1)
    kept = {name: value for name, value in best.weights.items() if name in recorder.steps[0]}
    torch.testing.assert_close(kept, average(recorder.steps[:steps], 0.7), rtol=1e-5, atol=1e-6)


def test_frozen_weights_stay_out_of_it() -> None:
    module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    averaged = AveragedWeights(0.9)
    averaged.update(module)
    assert set(averaged.average) == {"weight"}


def test_before_the_first_step_there_is_nothing_to_see() -> None:
    module = nn.Linear(3, 2)
    weight = module.weight.detach().clone()
    AveragedWeights(0.9).swap(module)
    assert torch.equal(module.weight, weight)
