"""What runs around the model on a GPU, rehearsed on a CPU: nothing waits for the device, and nothing else changes."""

from __future__ import annotations

import csv
import math
import os
import signal
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning
import pytest
import torch
from torch import Tensor

from support.ddp_scenarios import MAX_LEN, NUM_ITEMS, SIZE, data_module, market
from support.synchronisations import Synchronisations, as_on_a_gpu, reading_counted
from tslrec.data.sequence_batch import SequenceBatch, TrainingBatch
from tslrec.models.backbones.sasrec import SASRec
from tslrec.models.item_embedding import IdEmbedding
from tslrec.settings.trainer import TrainerConfig
from tslrec.system import devices
from tslrec.system.errors import StoppedError, UserError
from tslrec.system.meter import Meter
from tslrec.training import nonfinite_guard, resuming, spaced_exchange, trainer
from tslrec.training.background_batches import pinned
from tslrec.training.best_weights import BestWeights, selection_callbacks
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.next_item import NextItemModule
from tslrec.training.nonfinite_guard import NonFiniteGuard
from tslrec.training.resuming import fit
from tslrec.training.spaced_exchange import SpacedExchange
from tslrec.training.trainer import StageTrainers

__all__ = ["as_on_a_gpu"]

EPOCHS = 2


def stage_trainers(folder: Path, every_seconds: float = 1e9, **settings: Any) -> StageTrainers:
    config = TrainerConfig("cpu", checkpoint_seconds=every_seconds, **settings)
    return StageTrainers(config, "test", folder / "log", checkpoints=Checkpoints(folder / "kept"), meter=Meter())


def train(
    folder: Path, *callbacks: lightning.Callback, every_seconds: float = 1e9, **settings: Any
) -> tuple[dict[str, Tensor], BestWeights, list[dict[str, str]]]:
    """Weights at the end, the best weights, and the log, of a training with dropout and early stopping."""
    lightning.seed_everything(3, verbose=False)
    module = NextItemModule(SASRec(IdEmbedding(NUM_ITEMS, SIZE), 100, MAX_LEN), learning_rate=1e-2, weight_decay=0.0)
    best, selecting = selection_callbacks("masked", patience=10)
    made = stage_trainers(folder, every_seconds, **settings)(max_epochs=EPOCHS, callbacks=[*selecting, *callbacks])
    fit(made, module, data_module(market(31), packed=True))
    with (folder / "log" / "log" / "metrics.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {name: value.clone() for name, value in module.state_dict().items()}, best, rows


class At(lightning.Callback):
    """Does something after the backward pass of a step, and notes the weights of that moment."""

    def __init__(self, step: int, does: Any) -> None:
        self.step = step
        self.does = does

    def on_after_backward(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.step:
            self.does(pl_module)


def spoil(module: NextItemModule) -> None:
    weight: Any = module.backbone.item_embedding.weight
    weight.grad[3, 0] = torch.nan


class Spoilt(lightning.Callback):
    """Makes the loss of a step infinite."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_before_backward(self, trainer: lightning.Trainer, pl_module: Any, loss: Tensor) -> None:
        if trainer.global_step == self.step:
            loss.data.fill_(torch.inf)


def assert_same(found: Any, expected: Any) -> None:
    assert all(torch.equal(value, expected[0][name]) for name, value in found[0].items())
    assert found[1].epoch == expected[1].epoch
    assert all(torch.equal(value, expected[1].weights[name]) for name, value in found[1].weights.items())
    assert len(found[2]) == len(expected[2])
    for row, other in zip(found[2], expected[2], strict=True):
        assert row.keys() == other.keys()
        for name, text in row.items():
            # Metrics are summed over all users at once instead of by batch.
            assert float(text or 0) == pytest.approx(float(other[name] or 0), rel=1e-12)


def test_a_training_has_the_bits_of_one_on_a_cpu_also_when_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(tmp_path / "cpu")
    monkeypatch.setattr(devices, "queues_work", lambda device: True)
    assert_same(train(tmp_path / "gpu"), expected)
    for step in (2, 5):
        with pytest.raises(StoppedError):
            train(tmp_path / "killed", At(step, lambda module: os.kill(os.getpid(), signal.SIGTERM)))
        assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    assert_same(train(tmp_path / "killed"), expected)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(("what", "spoils"), [("gradient", At(2, spoil)), ("loss", Spoilt(2))])
def test_what_is_not_finite_is_found_by_the_end_of_the_epoch_and_never_kept(
    what: str, spoils: lightning.Callback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Mock()
    monkeypatch.setattr(BestWeights, "keep", kept)
    with pytest.raises(UserError, match=rf"test: the {what} is not finite at step 2 \(epoch 0, batch 2\); lower"):
        train(tmp_path, spoils)
    assert kept.call_count == 0
    assert Checkpoints(tmp_path / "kept").all() == []


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_checkpoint_is_written_only_of_steps_that_were_finite(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the gradient is not finite at step 2 "):
        train(tmp_path, At(2, spoil), every_seconds=0.0)
    newest = Checkpoints(tmp_path / "kept").newest()
    assert newest is not None
    assert newest[1]["step"] == 2
    expected = train(tmp_path / "whole")
    assert_same(train(tmp_path), expected)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_the_flags_are_read_after_some_steps_at_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nonfinite_guard, "CHECK_EVERY", 3)
    last: list[int] = []
    steps = At(-1, None)
    steps.on_before_optimizer_step = lambda trainer, *_: last.append(trainer.global_step)  # type: ignore[method-assign]
    with pytest.raises(UserError, match="is not finite at step 1 "):
        train(tmp_path, At(1, spoil), steps)
    assert last == [0, 1, 2]


def guarded(monkeypatch: pytest.MonkeyPatch, guard: NonFiniteGuard, loss: float, gradient: float) -> Synchronisations:
    """A step that the guard sees: what the host would have waited for."""
    parameter = torch.nn.Parameter(torch.ones(4))
    parameter.grad = torch.full((4,), gradient)
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    stand_in: Any = Mock(global_step=7, current_epoch=1)
    stand_in.fit_loop.batch_idx = 2
    module: Any = Mock()
    with reading_counted(monkeypatch) as waiting:
        guard.on_before_backward(stand_in, module, torch.tensor(loss))
        guard.on_before_optimizer_step(stand_in, module, optimizer)
        guard.on_train_batch_end(stand_in)
    return waiting


def test_a_guarded_step_waits_for_nothing_and_a_reading_once(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_cpu = guarded(monkeypatch, NonFiniteGuard("test", "do"), 1.0, 1.0)
    assert dict(on_a_cpu.found) == {"_local_scalar_dense": 2}
    monkeypatch.setattr(devices, "queues_work", lambda device: True)
    guard = NonFiniteGuard("test", "do")
    for _ in range(3):
        assert guarded(monkeypatch, guard, 1.0, 1.0).count == 0
    with reading_counted(monkeypatch) as waiting:
        guard.read(Mock())
    assert waiting.count == 1
    assert guarded(monkeypatch, guard, 1.0, math.inf).count == 0
    assert guarded(monkeypatch, guard, math.nan, 1.0).count == 0
    with pytest.raises(UserError, match=r"test: the gradient is not finite at step 7 \(epoch 1, batch 2\); do"):
        guard.read(Mock())
    guard.read(Mock())


def test_float32_products_are_coarse_in_training_steps_alone_and_as_before_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[tuple[str, bool]]] = {}

    class Watch(lightning.Callback):
        def note(self, where: str) -> None:
            now = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
            seen.setdefault(where, set()).add(now)

        def on_train_batch_end(self, *_: Any) -> None:
            self.note("training")

        def on_validation_batch_end(self, *_: Any) -> None:
            self.note("validation")

    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    train(tmp_path / "cpu", Watch(), matmul_precision="high")
    assert seen == {"training": {before}, "validation": {before}}
    seen.clear()
    monkeypatch.setattr(devices, "queues_work", lambda device: True)
    train(tmp_path / "gpu", Watch(), matmul_precision="high")
    assert seen == {"training": {("high", True)}, "validation": {("highest", False)}}
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    with pytest.raises(UserError):
        train(tmp_path / "spoilt", At(1, spoil), matmul_precision="high")
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before


def test_determinism_is_asked_for_on_gpus_and_not_touched_on_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Mock()
    monkeypatch.setattr(lightning, "Trainer", made)
    for accelerator, chosen in (("cpu", True), ("gpu", False), ("gpu", True)):
        stage_trainers(tmp_path, accelerator=accelerator, deterministic=chosen)(max_epochs=1)
    assert [call.kwargs["deterministic"] for call in made.call_args_list] == [None, False, True]


def test_the_progress_bar_does_not_read_the_loss_after_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "NUMBERS_SECONDS", math.inf)
    reads = Mock(wraps=trainer.StageProgress.get_metrics)
    monkeypatch.setattr(
        trainer.StageProgress, "get_metrics", lambda self, *arguments: reads(self, *arguments) and {"loss": 1.0}
    )
    train(tmp_path)
    # After the first step, and at the end of each validation and epoch.
    assert 0 < reads.call_count <= 1 + 2 * EPOCHS


def test_a_random_state_does_not_begin_to_use_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    state = resuming.random_state()
    assert state["cuda"] is None
    resuming.restore_random_state(state)
    assert not torch.cuda.is_initialized()


def test_the_random_state_of_a_process_holds_that_of_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    restored = Mock()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.arange(16, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", restored)
    resuming.restore_random_state(resuming.random_state())
    assert restored.call_args.args[0].tolist() == list(range(16))


@pytest.mark.usefixtures("as_on_a_gpu")
def test_ranks_exchange_flags_about_once_a_second_and_at_least_every_so_many_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, step = 100.0, 0
    exchanges: list[int] = []

    def with_a_slower_rank(mine: Tensor, device: torch.device) -> Tensor:
        exchanges.append(step)
        happened_there = float(len(exchanges) == 4)
        return torch.maximum(mine, torch.tensor([2 * mine[0].item(), 0.0, happened_there]))

    monkeypatch.setattr(spaced_exchange, "rank_and_world_size", lambda: (0, 2))
    monkeypatch.setattr(spaced_exchange, "greatest_of_any_process", with_a_slower_rank)
    monkeypatch.setattr(spaced_exchange.time, "monotonic", lambda: now)
    exchange, found = SpacedExchange(), []
    # Steps of the slower rank take 0.25 s, then 2 ms, then 10 s.
    for step in range(230):
        now += 0.125 if step < 20 else 0.001 if step < 200 else 5.0
        found.append(exchange.any_of([False, False], torch.device("cpu")))
    assert exchanges == [0, 4, 8, 12, 16, 20, 25, 75, 125, 175, *range(225, 230)]
    assert [step for step, flags in enumerate(found) if flags == [False, True]] == [12]


def test_a_process_that_is_alone_exchanges_nothing_and_sees_its_flags_at_once() -> None:
    exchange = SpacedExchange()
    assert exchange.any_of([True, False], torch.device("cpu")) == [True, False]
    assert exchange.steps == 0


def test_every_tensor_of_a_batch_is_pinned_and_the_batch_keeps_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Mock(return_value=nullcontext())
    monkeypatch.setattr(torch.cuda, "device", chosen)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self + 100)
    batch = next(iter(data_module(market(31), packed=True).train_dataloader()))
    device = torch.device("cuda", 1)
    found = pinned(batch, device)
    assert chosen.call_args.args == (device,)
    assert isinstance(found, TrainingBatch)
    assert found.num_targets == batch.num_targets
    for part, before in zip(found.parts, batch.parts, strict=True):
        assert isinstance(part, SequenceBatch)
        assert part.seen_rows is None
        assert torch.equal(part.items_BL, before.items_BL + 100)
        assert part.packing is not None
        assert before.packing is not None
        for each, unpinned in zip(part.packing, before.packing, strict=True):
            assert torch.equal(each, unpinned + 100)
