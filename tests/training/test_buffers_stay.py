"""No name of a strategy makes DDP send the buffers, the knowledge of all items among them, before every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.strategies import DDPStrategy

from tslrec.settings.trainer import TrainerConfig
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers, buffer_setting

SECTION = {"_target_": "lightning.pytorch.strategies.DDPStrategy"}


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true", SECTION])
def test_buffers_are_not_sent(strategy: Any, tmp_path: Path) -> None:
    made = StageTrainers(
        TrainerConfig("cpu", devices=2, strategy=strategy),
        "test",
        tmp_path,
        checkpoints=Checkpoints(tmp_path),
        meter=Meter(),
    )(max_epochs=1).strategy
    assert isinstance(made, DDPStrategy)
    assert made._ddp_kwargs[buffer_setting()] is False
    assert made._ddp_kwargs.get("find_unused_parameters", False) == ("unused" in str(strategy))


def test_a_section_may_ask_for_them(tmp_path: Path) -> None:
    section = {**SECTION, buffer_setting(): True}
    config = TrainerConfig("cpu", devices=2, strategy=section)
    trainers = StageTrainers(config, "test", tmp_path, checkpoints=Checkpoints(tmp_path), meter=Meter())
    made = trainers(max_epochs=1).strategy
    assert isinstance(made, DDPStrategy)
    assert made._ddp_kwargs[buffer_setting()] is True
