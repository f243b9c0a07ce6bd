"""The preference SFT: what it shows and optimises, what it writes, and that it learns."""

from __future__ import annotations

import csv
import functools
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from conftest import make_interactions
from sft_market import CLUSTERS_I, NUM_CLUSTERS, held_back_error, market, sft_context
from tslrec.checkpoints import Checkpoints
from tslrec.errors import UserError
from tslrec.interactions import Interactions
from tslrec.llm.data import (
    PreferenceBatch,
    PreferenceDataModule,
    training_histories,
    window_preferences,
)
from tslrec.llm.packing import Packer
from tslrec.preference_fit import PreferenceFit, squared_error, top_category_is_right
from tslrec.preferences import user_preferences
from tslrec.sampling import split_users
from tslrec.stages import sft
from tslrec.stages.adapted import rate_at
from tslrec.stages.context import StageContext
from tslrec.trainers import StageTrainers


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


def test_the_window_target_is_over_the_shown_items(make_context: MakeContext) -> None:
    context = make_context(target="window")
    context.config.training.max_len = 1
    histories = training_histories(context.interactions, 1)
    targets_UK = window_preferences(histories, CLUSTERS_I, NUM_CLUSTERS)
    shown = np.array([items[-1] for items in histories])
    np.testing.assert_array_equal(targets_UK, np.eye(NUM_CLUSTERS)[CLUSTERS_I[shown]])
    mean_K = targets_UK.mean(axis=0)
    metrics = sft.run(context)
    assert metrics["constant_loss"] == pytest.approx(((targets_UK - mean_K) ** 2).sum(axis=1).mean(), rel=0.05)


@pytest.mark.parametrize(("reduction", "users"), [("mean", 1), ("sum", 8)])
def test_the_reduction_scales_the_gradient(reduction: str, users: int, make_context: MakeContext) -> None:
    losses: list[float] = []

    class Recorder(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            losses.append(float(outputs["loss"]) / float(trainer.callback_metrics["loss"]))

    context = make_context(reduction=reduction, max_epochs=1)

    def recording(**settings: Any) -> lightning.Trainer:
        return make_trainer(**{**settings, "callbacks": [Recorder()]})

    sft.run(replace(context, make_trainer=recording))
    assert losses == pytest.approx([users] * len(losses), rel=1e-5)


def test_the_error_is_summed_over_categories() -> None:
    logits_BK = torch.tensor([[0.0, 0.0], [50.0, 0.0]])
    targets_BK = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(squared_error(logits_BK, targets_BK), torch.tensor([0.5, 2.0]))


def test_any_of_the_most_frequent_categories_is_right() -> None:
    logits_BK = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    targets_BK = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    assert top_category_is_right(logits_BK, targets_BK).tolist() == [True, False]


def test_the_rate_rises_linearly_and_falls_to_zero() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == 1
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0)


def test_a_mean_that_is_right_can_be_too_sure_of_itself() -> None:
    fit = PreferenceFit(2)
    # Two users who are half one and half the other, of whom each is taken for one of the two.
    logits_BK = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    targets_BK = torch.full((2, 2), 0.5)
    for user in range(2):
        one = slice(user, user + 1)
        errors_B = squared_error(logits_BK[one], targets_BK[one])
        fit.add(logits_BK[one], targets_BK[one], errors_B, torch.tensor([0.64]))
    for category in fit.calibration():
        assert category == pytest.approx({"predicted": 0.5, "actual": 0.5, "error": 0.4})
    expected = {"loss": 0.32, "constant_loss": 0.64, "explained_share": 0.5, "top_category_right": 1.0}
    assert fit.metrics() == pytest.approx({**expected, "calibration_error": 0.4})


def test_a_share_of_exactly_zero_or_one_has_a_bin() -> None:
    fit = PreferenceFit(2)
    sure_BK = torch.tensor([[200.0, -200.0]])
    fit.add(sure_BK, torch.tensor([[1.0, 0.0]]), torch.zeros(1), torch.ones(1))
    assert fit.metrics()["calibration_error"] == 0


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
    trainers = StageTrainers(context.config.trainer, "sft", context.folder)
    metrics = sft.run(replace(context, make_trainer=trainers))
    with (context.folder / "log" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["validation/loss"]]
    assert [int(row["step"]) for row in rows] == [3, 7]
    for name in ("loss", "constant_loss", "explained_share", "top_category_right", "calibration_error"):
        logged = [float(row[f"validation/{name}"]) for row in rows]
        assert logged[metrics["best_epoch"]] == pytest.approx(metrics[f"validation/{name}"])


def data_module(
    interactions: Interactions, batch_size: int = 10, max_len: int = 50, held_back: float = 0.0
) -> PreferenceDataModule:
    targets_UK = user_preferences(interactions, CLUSTERS_I, NUM_CLUSTERS)
    packer = Packer(num_response=1)
    return PreferenceDataModule(
        interactions,
        targets_UK,
        packer,
        max_len=max_len,
        batch_size=batch_size,
        seed=0,
        held_back=held_back,
        eval_batch_size=4,
    )


def test_held_back_users_are_validated_on_and_never_trained_on() -> None:
    # Users who are known by the only item that is shown of them.
    interactions = make_interactions([[1 + user, 1, 2] for user in range(20)])
    data = data_module(interactions, held_back=0.2)

    def shown(batches: Iterable[PreferenceBatch]) -> list[int]:
        tokens = torch.cat([batch.examples.tokens_RT.flatten() for batch in batches])
        return sorted(tokens[tokens > 0].tolist())

    validated = shown(data.val_dataloader())
    assert len(validated) == 4
    for _ in range(2):
        assert shown(data.train_dataloader()) == sorted(set(range(1, 21)) - set(validated))
    assert set(shown([PreferenceBatch(data.sample(20), torch.empty(0), True, 0)])).isdisjoint(validated)


@pytest.mark.parametrize(("users", "held_back", "count"), [(100, 0.05, 5), (10, 0.01, 1), (2, 0.5, 1), (10, 0.0, 0)])
def test_users_are_held_back_by_share_and_seed(users: int, held_back: float, count: int) -> None:
    trained, chosen = split_users(users, held_back, 0)
    assert len(chosen) == count
    assert sorted([*trained, *chosen]) == list(range(users))
    assert np.array_equal(split_users(users, held_back, 0)[1], chosen)
    others = {tuple(split_users(users, held_back, seed)[1]) for seed in range(20)}
    assert len(others) > 1 or count == 0


def test_a_single_user_cannot_be_held_back() -> None:
    with pytest.raises(UserError, match=r"sft.held_back: .* set it to 0"):
        split_users(1, 0.1, 0)


def test_validation_and_test_items_are_never_shown() -> None:
    interactions = make_interactions([[1, 2, 3, 4, 5], [6, 7], [8, 9, 10]])
    shown = [items.tolist() for items in training_histories(interactions, 50)]
    assert shown == [[1, 2, 3], [6, 7], [8]]


def test_a_long_history_is_cut_to_its_last_items() -> None:
    interactions = make_interactions([[1, 2, 3, 4, 5, 6]])
    assert [items.tolist() for items in training_histories(interactions, 2)] == [[3, 4]]


def test_an_epoch_shows_each_user_once_with_its_own_target() -> None:
    interactions = market()
    loader = data_module(interactions).train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader)
    shown: list[tuple[list[int], list[float]]] = []
    for batch in batches:
        for user in range(len(batch.targets_BK)):
            tokens = batch.examples.tokens_RT[batch.examples.examples_RT == user]
            shown.append((tokens[tokens > 0].tolist(), batch.targets_BK[user].tolist()))
    targets_UK = user_preferences(interactions, CLUSTERS_I, NUM_CLUSTERS).tolist()
    expected = [
        (items.tolist(), target) for items, target in zip(training_histories(interactions, 50), targets_UK, strict=True)
    ]
    assert sorted(shown) == sorted(expected)


def test_processes_share_each_step_without_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(rank: int, world_size: int) -> list[PreferenceBatch]:
        monkeypatch.setattr("tslrec.sampling.process_place", lambda: (rank, world_size))
        return list(data_module(market(21), batch_size=10).train_dataloader())

    whole = batches(0, 1)
    shares = [batches(rank, 2) for rank in range(2)]
    for each in (whole, *shares):
        assert [batch.num_users for batch in each] == [10, 10, 1]
    first_step = torch.cat([share[0].targets_BK for share in shares])
    assert sorted(first_step.tolist()) == sorted(whole[0].targets_BK.tolist())
    # A last user alone is run by both, and counted by one.
    assert [share[2].counted for share in shares] == [True, False]
    assert torch.equal(shares[0][2].targets_BK, shares[1][2].targets_BK)


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
        checkpoints = Checkpoints(tmp_path / f"{name}.checkpoints", lambda line: None)
        config = replace(context.config.trainer, checkpoint_seconds=0)
        trainers = StageTrainers(config, "sft", context.folder, checkpoints=checkpoints)

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
