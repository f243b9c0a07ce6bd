"""A loss or a gradient that is not finite stops each training before the step; the last good checkpoint resumes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision

from support.in_process import train_here
from support.runs import SMALL
from tslrec.system.errors import UserError
from tslrec.training import trainer as trainers
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.nonfinite_guard import NonFiniteGuard

RUN = [*SMALL, "trainer.checkpoint_seconds=0", "training.batch_size=64", "training.max_epochs=1"]
RUN += ["sft.batch_size=8", "e4srec.max_epochs=1", "e4srec.batch_size=16"]
STEP = 3


class Poison(trainers.OwnDraws):
    """Spoils one training in its fourth step."""

    stage: str
    what: str

    def in_its_step(self, trainer: lightning.Trainer) -> bool:
        (mine,) = (each.stage for each in trainer.callbacks if isinstance(each, trainers.NonFiniteGuard))  # type: ignore[attr-defined]
        return bool(mine == self.stage and trainer.global_step == STEP)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: torch.Tensor) -> None:
        if self.what == "loss" and self.in_its_step(trainer):
            loss.data.fill_(torch.nan)

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if self.what == "gradient" and self.in_its_step(trainer):
            spoilt = next(each for each in pl_module.parameters() if each.grad is not None)
            spoilt.grad.flatten()[-1] = torch.inf


@pytest.mark.parametrize(
    ("method", "stage", "what"),
    [
        ("base", "backbone", "gradient"),
        ("tslrec", "sft", "loss"),
        ("tslrec", "fusion", "gradient"),
        ("e4srec", "e4srec", "loss"),
    ],
)
@pytest.mark.slow
def test_each_training_stops_before_the_step_and_goes_on_from_the_last_good_one(
    method: str, stage: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = [f"method={method}", *RUN]
    with monkeypatch.context() as patched:
        poison = type("Poisoned", (Poison,), {"stage": f"{method} {stage}", "what": what})
        patched.setattr(trainers, "OwnDraws", poison)
        line = train_here(*run, folder=tmp_path).refusal
    expected = f"{method} {stage}: the {what} is not finite at step {STEP} (epoch 0, batch {STEP}); lower the learning"
    assert expected in line
    (folder,) = (tmp_path / "artifacts" / stage).glob("*.checkpoints")
    newest = Checkpoints(folder).newest()
    assert newest is not None
    assert newest[1]["step"] == STEP
    assert not list((tmp_path / "artifacts" / stage).glob("*/manifest.json"))
    again = train_here(*run, folder=tmp_path)
    assert again.code == 0, again.err
    assert f"{method} {stage}: resumes from step {STEP}" in again.out
    (result,) = (tmp_path / "artifacts" / "runs").glob("*/result.json")
    assert json.loads(result.read_text())["results"][0]["method"] == method


def test_a_gradient_scaler_may_try_a_scale_that_overflows() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), torch.inf)
    optimizer = torch.optim.SGD([weight])
    guard = NonFiniteGuard("backbone", "lower the learning rate")
    place = {"global_step": 0, "current_epoch": 0, "fit_loop": SimpleNamespace(batch_idx=0)}
    scaling = SimpleNamespace(precision_plugin=MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu")), **place)
    guard.on_before_optimizer_step(scaling, None, optimizer)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the loss is not finite"):
        guard.on_before_backward(scaling, None, torch.tensor(torch.inf))  # type: ignore[arg-type]
    plain = SimpleNamespace(precision_plugin=MixedPrecision("bf16-mixed", "cpu"), **place)
    with pytest.raises(UserError, match="the gradient is not finite"):
        guard.on_before_optimizer_step(plain, None, optimizer)  # type: ignore[arg-type]
