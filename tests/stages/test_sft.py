"""The preference SFT: what it shows and optimises, what it writes, and that it learns."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
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
from sft_market import CLUSTERS_I, NUM_CLUSTERS, market, sft_context
from tslrec.checkpoints import Checkpoints
from tslrec.interactions import Interactions
from tslrec.llm.data import PreferenceBatch, PreferenceDataModule, training_histories, window_preferences
from tslrec.llm.packing import Packer
from tslrec.preferences import user_preferences
from tslrec.stages import sft
from tslrec.stages.context import StageContext
from tslrec.stages.sft import rate_at, squared_error, top_category_is_right
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
    assert written == {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "heads.safetensors"}
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


def data_module(interactions: Interactions, batch_size: int = 10, max_len: int = 50) -> PreferenceDataModule:
    targets_UK = user_preferences(interactions, CLUSTERS_I, NUM_CLUSTERS)
    packer = Packer(num_response=1)
    return PreferenceDataModule(interactions, targets_UK, packer, max_len=max_len, batch_size=batch_size, seed=0)


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


def test_a_killed_training_goes_on_to_the_same_weights(make_context: MakeContext, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    class Kill(lightning.Callback):
        def __init__(self, step: int) -> None:
            self.step = step

        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == self.step:
                raise KilledError

    def run(name: str, *callbacks: lightning.Callback) -> dict[str, Any]:
        context = make_context(folder=name)
        shutil.rmtree(context.folder)
        checkpoints = Checkpoints(tmp_path / f"{name}.checkpoints", lambda line: None)
        config = replace(context.config.trainer, checkpoint_seconds=0)
        trainers = StageTrainers(config, "sft", context.folder, checkpoints=checkpoints)
        trained = replace(context, make_trainer=lambda **settings: trainers(**{**settings, "callbacks": callbacks}))
        return sft.run(trained)

    whole = run("whole")
    for step in (3, 17, 40):
        with pytest.raises(KilledError):
            run("killed", Kill(step))
    killed = run("killed")
    assert {**killed, "training_seconds": 0} == {**whole, "training_seconds": 0}
    assert (tmp_path / "killed/log/metrics.csv").read_bytes() == (tmp_path / "whole/log/metrics.csv").read_bytes()
    expected = weights_of(tmp_path / "whole")
    assert all(np.array_equal(array, expected[name]) for name, array in weights_of(tmp_path / "killed").items())
