"""The preference SFT: what it shows and optimises, what it writes, and that it learns."""

from __future__ import annotations

import csv
import functools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file

from support.sft_market import NUM_CLUSTERS, held_back_error, sft_context
from tslrec.llm.finetuning import rate_at
from tslrec.stages.context import StageContext
from tslrec.stages.sft import stage as sft
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers


def make_trainer(
    *,
    max_epochs: int,
    callbacks: Any = (),
    llm: bool = False,
    gradient_clip: float | None = None,
) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        max_epochs=max_epochs,
        callbacks=list(callbacks),
        gradient_clip_val=gradient_clip,
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., StageContext]:
    """`sft_context` in a folder of the test's own."""
    return functools.partial(sft_context, tmp_path, make_trainer)


MakeContext = Callable[..., StageContext]


def weights_of(folder: Path) -> dict[str, NDArray[np.float32]]:
    return {**load_file(folder / "adapter" / "adapter_model.safetensors"), **load_file(folder / "heads.safetensors")}


def test_beats_the_constant_predictor(make_context: MakeContext) -> None:
    metrics = sft.run(make_context())
    assert metrics["explained_share"] > 0.3
    assert metrics["explained_share"] == pytest.approx(1 - metrics["loss_final"] / metrics["constant_loss"])
    assert metrics["loss_final"] < metrics["loss_mean"]
    assert metrics["top_category_right"] > 0.6


def test_writes_pefts_adapter_and_the_heads_and_nothing_else(make_context: MakeContext) -> None:
    context = make_context(max_epochs=1)
    sft.run(context)
    written = {path.relative_to(context.folder).as_posix() for path in context.folder.rglob("*") if path.is_file()}
    adapter = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"}
    assert written == {*adapter, "heads.safetensors", "calibration.json"}
    assert weights_of(context.folder)["group_head.weight"].shape == (NUM_CLUSTERS, 32)


def test_no_path_of_this_machine_is_written(make_context: MakeContext) -> None:
    context = make_context(max_epochs=1)
    sft.run(context)
    assert str(Path.home()) not in (context.folder / "adapter" / "adapter_config.json").read_text()


def test_the_same_seed_gives_the_same_weights(make_context: MakeContext) -> None:
    first = make_context("first", max_epochs=1)
    sft.run(first)
    second = make_context("second", max_epochs=1)
    sft.run(second)
    for name, value in weights_of(first.folder).items():
        np.testing.assert_array_equal(value, weights_of(second.folder)[name])


def test_counts_what_is_trainable(make_context: MakeContext) -> None:
    context = make_context(max_epochs=1)
    metrics = sft.run(context)
    assert metrics["trainable_parameters"] == sum(value.size for value in weights_of(context.folder).values())
    assert 0 < metrics["trainable_share"] < 1


def test_the_loss_of_a_step_is_the_mean_over_its_users(make_context: MakeContext) -> None:
    losses: list[float] = []

    class Recorder(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            losses.append(float(outputs["loss"]) / float(trainer.callback_metrics["loss"]))

    context = make_context(max_epochs=1)

    def recording(**settings: Any) -> lightning.Trainer:
        return make_trainer(**{**settings, "callbacks": [Recorder()]})

    sft.run(replace(context, make_trainer=recording))
    assert losses == pytest.approx([1] * len(losses), rel=1e-5)


def test_the_rate_rises_linearly_and_falls_to_zero() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == 1
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0)


def test_the_calibration_of_each_category_is_written(make_context: MakeContext) -> None:
    context = make_context(max_epochs=1)
    metrics = sft.run(context)
    written = json.loads((context.folder / "calibration.json").read_text())
    assert written["error"] == pytest.approx(metrics["calibration_error"])
    # Of 12 steps with 8 users, the last third.
    assert written["users"] == 32
    for name in ("predicted", "actual"):
        assert sum(category[name] for category in written["categories"]) == pytest.approx(1)


def test_the_adapter_of_the_least_error_on_held_back_users_is_written(make_context: MakeContext) -> None:
    context = make_context(held_back=0.25, max_epochs=40, patience=2, learning_rate=2e-2)
    metrics = sft.run(context)
    assert metrics["epochs"] == metrics["best_epoch"] + 3 < 40
    assert metrics["validation/users"] == 24
    # Of what is written, on users none of whom was trained on.
    assert metrics["validation/loss"] == pytest.approx(held_back_error(context), rel=1e-4)
    written = json.loads((context.folder / "calibration.json").read_text())
    assert written["measured_on"] == "held-back users"
    assert written["users"] == 24
    assert written["error"] == pytest.approx(metrics["validation/calibration_error"], rel=1e-6)


def test_each_validation_is_logged(make_context: MakeContext, tmp_path: Path) -> None:
    context = make_context(held_back=0.1, max_epochs=2, steps_per_epoch=4)
    trainers = StageTrainers(
        context.config.trainer, "sft", context.folder, checkpoints=context.checkpoints, meter=context.meter
    )
    metrics = sft.run(replace(context, make_trainer=trainers))
    with (context.folder / "log" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["validation/loss"]]
    assert [int(row["step"]) for row in rows] == [3, 7]
    for name in ("loss", "constant_loss", "explained_share", "top_category_right", "calibration_error"):
        logged = [float(row[f"validation/{name}"]) for row in rows]
        assert logged[metrics["best_epoch"]] == pytest.approx(metrics[f"validation/{name}"])


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"max_epochs": 1}, (3, 7)),
        # Of 72 users 9 steps; killed in an epoch, at its beginning, and after the first pass over them.
        ({"held_back": 0.25, "steps_per_epoch": 4, "max_epochs": 3, "patience": 1}, (2, 4, 10)),
    ],
)
def test_a_killed_training_goes_on_to_the_same_weights(
    changes: dict[str, Any], steps: tuple[int, ...], make_context: MakeContext, tmp_path: Path
) -> None:
    class KilledError(Exception):
        pass

    class Kill(lightning.Callback):
        def __init__(self, step: int) -> None:
            self.step = step

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == self.step:
                raise KilledError

    def run(name: str, *callbacks: lightning.Callback) -> dict[str, Any]:
        context = make_context(folder=name, **changes)
        shutil.rmtree(context.folder)
        checkpoints = Checkpoints(tmp_path / f"{name}.checkpoints")
        config = replace(context.config.trainer, checkpoint_seconds=0)
        trainers = StageTrainers(config, "sft", context.folder, checkpoints=checkpoints, meter=context.meter)

        def make_trainer(**settings: Any) -> lightning.Trainer:
            return trainers(**{**settings, "callbacks": [*settings["callbacks"], *callbacks]})

        trained = replace(context, make_trainer=make_trainer)
        return sft.run(trained)

    whole = run("whole")
    for step in steps:
        with pytest.raises(KilledError):
            run("killed", Kill(step))
    killed = run("killed")
    assert {**killed, "training_seconds": 0} == {**whole, "training_seconds": 0}
    assert (tmp_path / "killed/log/metrics.csv").read_bytes() == (tmp_path / "whole/log/metrics.csv").read_bytes()
    assert (tmp_path / "killed/calibration.json").read_bytes() == (tmp_path / "whole/calibration.json").read_bytes()
    expected = weights_of(tmp_path / "whole")
    assert all(np.array_equal(array, expected[name]) for name, array in weights_of(tmp_path / "killed").items())
