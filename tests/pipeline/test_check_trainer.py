"""Trainer values that Lightning or the machine would refuse later are refused in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest

from tslrec.pipeline.check_trainer import check_trainer, number_of_devices
from tslrec.settings.trainer import PRECISIONS, TrainerConfig
from tslrec.system.errors import UserError

CPU = TrainerConfig(name="cpu")
GPU = TrainerConfig(name="gpu", accelerator="gpu")


def test_the_precisions_are_lightnings() -> None:
    from lightning.fabric.plugins.precision import precision

    names = {*get_args(precision._PRECISION_INPUT_STR), *get_args(precision._PRECISION_INPUT_STR_ALIAS)}
    assert set(PRECISIONS) == names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "16-mixed"}, r"trainer\.precision=16-mixed: is for GPUs.*bf16-mixed"),
        ({"llm_precision": "transformer-engine"}, r"trainer\.llm_precision=.*needs the package"),
        ({"devices": -1}, r"trainer\.devices=-1: must be a number from 1"),
        ({"devices": True}, r"trainer\.devices=True"),
        ({"devices": 1.5}, r"trainer\.devices=1\.5"),
        ({"devices": None}, r"trainer\.devices=None"),
        ({"devices": [0]}, r"trainer\.devices=\[0\]"),
        ({"devices": "0"}, r"trainer\.devices=0"),
        ({"devices": {}}, r"trainer\.devices=\{\}"),
        ({"devices": 10**7}, r"trainer\.devices=10000000: this machine has"),
        ({"strategy": "ddp_spawn"}, r"trainer\.strategy=ddp_spawn: its processes end"),
        ({"llm_strategy": "dpp"}, r"trainer\.llm_strategy=dpp: must be auto, ddp.*nearest: ddp"),
        ({"strategy": 3}, r"trainer\.strategy=3"),
        ({"strategy": None}, r"trainer\.strategy=None"),
        (
            {"strategy": {"_target_": "builtins.dict"}},
            r"trainer\.strategy\._target_=builtins\.dict: is no class",
        ),
        ({"num_nodes": 4}, r"trainer\.num_nodes=4: nothing has started the other nodes"),
    ],
)
def test_what_lightning_would_refuse_later_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        check_trainer(replace(CPU, **changes), {})
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) <= 300


@pytest.mark.parametrize(
    "changes",
    [{"devices": 2}, {"devices": "2"}, {"devices": "auto"}, {"precision": "bf16-mixed"}, {"strategy": "ddp"}],
)
def test_what_lightning_takes_passes(changes: dict[str, Any]) -> None:
    check_trainer(replace(CPU, **changes), {})


@pytest.mark.parametrize("launcher", [{"RANK": "0", "LOCAL_RANK": "0"}, {"SLURM_PROCID": "0"}, {"NODE_RANK": "1"}])
def test_several_nodes_pass_where_a_launcher_started_them(launcher: dict[str, str]) -> None:
    check_trainer(replace(CPU, num_nodes=2), launcher)


def test_another_number_of_processes_than_torchrun_started_is_refused() -> None:
    started = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}
    check_trainer(replace(CPU, num_nodes=2, devices=2), started)
    with pytest.raises(UserError, match=r"torchrun has started 4 processes"):
        check_trainer(replace(CPU, devices=2), started)


@pytest.mark.parametrize(
    ("devices", "number"),
    [(2, 2), (-1, -1), ("auto", -1), ("0,2", 2), ([1], 1), ([0, 0], None), ([], None), ("x", None), (0, None)],
)
def test_devices_of_a_gpu(devices: Any, number: int | None) -> None:
    assert number_of_devices(replace(GPU, devices=devices)) == number
