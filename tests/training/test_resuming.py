"""A training that was interrupted ends as one that was not; whatever lies on disk is verified or refused."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from support.ddp_scenarios import MAX_LEN, NUM_ITEMS, SIZE, data_module, market
from support.threads import torch_threads
from tslrec.models.backbones.bert4rec import BERT4Rec
from tslrec.models.backbones.caser import Caser
from tslrec.models.backbones.fmlp import FMLPRec
from tslrec.models.backbones.fpmc import FPMC
from tslrec.models.backbones.gru4rec import GRU4Rec
from tslrec.models.backbones.lru import LRURec
from tslrec.models.backbones.sasrec import SASRec
from tslrec.models.item_embedding import IdEmbedding
from tslrec.settings.trainer import TrainerConfig
from tslrec.system.errors import StoppedError, UserError
from tslrec.system.meter import Meter
from tslrec.training import step_loss
from tslrec.training.best_weights import selection_callbacks
from tslrec.training.checkpoint_io import TENSORS, TREE
from tslrec.training.checkpoints import STATE, Checkpoints
from tslrec.training.next_item import NextItemModule
from tslrec.training.resuming import fit
from tslrec.training.sampled_softmax import NegativeSampler
from tslrec.training.trainer import StageTrainers

EPOCHS = 3
Kind = type[SASRec] | type[GRU4Rec] | type[Caser] | type[FMLPRec] | type[FPMC] | type[BERT4Rec] | type[LRURec]
Outcome = tuple[dict[str, torch.Tensor], dict[str, Any], bytes]


class KilledError(Exception):
    """Takes the place of SIGKILL, which leaves no time for anything either."""


class Interrupt(lightning.Callback):
    """Interrupts a training after some steps, or in an evaluation."""

    def __init__(self, step: int, how: Callable[[], None], *, validating: bool = False) -> None:
        self.step = step
        self.how = how
        self.validating = validating

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not self.validating and trainer.global_step == self.step:
            self.how()

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.validating and trainer.global_step >= self.step:
            self.how()


def kill() -> None:
    raise KilledError


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def training(
    folder: Path,
    interrupt: Interrupt | None = None,
    *,
    kind: Kind = SASRec,
    num_negatives: int | None = None,
    every_seconds: float = 0.0,
    batch_size: int = 24,
) -> Outcome:
    """A training with dropout and early stopping: its weights, its best evaluation and its log."""
    lightning.seed_everything(3, verbose=False)
    backbone = kind(IdEmbedding(NUM_ITEMS, SIZE), 100, MAX_LEN)
    data = data_module(
        market(31),
        all_positions=kind.causal,
        packed=kind is SASRec,
        masking=backbone.masking,
        batch_size=batch_size,
    )
    module = NextItemModule(
        backbone,
        learning_rate=1e-2,
        weight_decay=0.0,
        sampler=None
        if num_negatives is None
        else NegativeSampler(
            np.bincount(data.interactions.items, minlength=NUM_ITEMS + 1), num_negatives=num_negatives, exponent=0.5
        ),
    )
    best, callbacks = selection_callbacks("masked", patience=10)
    log = folder / "stage"
    if log.exists():
        # As the artifact store does with what a killed process left.
        shutil.rmtree(log)
    trainer = StageTrainers(
        TrainerConfig("cpu", checkpoint_seconds=every_seconds),
        "test",
        log,
        checkpoints=Checkpoints(folder / "stage.checkpoints"),
        meter=Meter(),
    )(max_epochs=EPOCHS, callbacks=[*callbacks, *([interrupt] if interrupt else [])])
    fit(trainer, module, data)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    state = {"best": best.state_dict(), "stopping": callbacks[1].state_dict(), "steps": trainer.global_step}
    return weights, state, (log / "log" / "metrics.csv").read_bytes()


def assert_same(found: Outcome, expected: Outcome) -> None:
    """Bit for bit."""
    assert found[0].keys() == expected[0].keys()
    assert all(torch.equal(found[0][name], expected[0][name]) for name in expected[0])
    assert found[1]["steps"] == expected[1]["steps"]
    assert found[1]["best"]["epoch"] == expected[1]["best"]["epoch"]
    assert found[1]["best"]["metrics"] == expected[1]["best"]["metrics"]
    weights = expected[1]["best"]["weights"]
    assert all(torch.equal(found[1]["best"]["weights"][name], weights[name]) for name in weights)
    assert found[1]["stopping"] == expected[1]["stopping"]
    assert found[2] == expected[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return training(tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
def test_killed_at_any_step_it_ends_as_if_it_had_not_been(whole: Outcome, tmp_path: Path) -> None:
    steps = whole[1]["steps"]
    assert steps > 2 * EPOCHS
    assert b"nan" not in whole[2]
    for step in range(1, steps, 2):
        folder = tmp_path / str(step)
        with pytest.raises(KilledError):
            training(folder, Interrupt(step, kill))
        assert_same(training(folder), whole)


def test_killed_again_and_again_it_ends_as_if_it_had_not_been(whole: Outcome, tmp_path: Path) -> None:
    for step in range(2, whole[1]["steps"], 3):
        with pytest.raises(KilledError):
            training(tmp_path, Interrupt(step, kill))
    assert_same(training(tmp_path), whole)


def test_killed_in_a_validation_it_ends_as_if_it_had_not_been(whole: Outcome, tmp_path: Path) -> None:
    for number, step in enumerate((1, whole[1]["steps"])):
        with pytest.raises(KilledError):
            training(tmp_path / str(number), Interrupt(step, kill, validating=True))
        assert_same(training(tmp_path / str(number)), whole)


def test_epochs_of_a_single_batch_go_on(tmp_path: Path) -> None:
    expected = training(tmp_path / "whole", batch_size=1000)
    assert expected[1]["steps"] == EPOCHS
    for step in range(1, EPOCHS):
        with pytest.raises(KilledError):
            training(tmp_path / "killed", Interrupt(step, kill), batch_size=1000)
        names = sorted(each.name for each in tmp_path.glob("killed/stage.checkpoints/*"))
        assert names[-1] == f"step-{step:09d}"
    assert_same(training(tmp_path / "killed", batch_size=1000), expected)


def test_a_signal_in_an_epoch_of_a_single_batch_loses_nothing(tmp_path: Path, log_lines: list[str]) -> None:
    expected = training(tmp_path / "whole", batch_size=1000)
    with pytest.raises(StoppedError, match="at step 2; the same command goes on from its last checkpoint"):
        training(tmp_path / "stopped", Interrupt(1, send(signal.SIGTERM)), every_seconds=1e9, batch_size=1000)
    assert_same(training(tmp_path / "stopped", batch_size=1000), expected)
    assert log_lines == ["test: resumes from step 2"]


def test_damaged_checkpoints_do_not_cost_those_that_follow(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        training(tmp_path, Interrupt(5, kill))
    for path in tmp_path.glob("stage.checkpoints/*/manifest.json"):
        path.write_text("{")
    with pytest.raises(KilledError):
        training(tmp_path, Interrupt(3, kill))
    assert {each.name for each in tmp_path.glob("stage.checkpoints/step-*")} == {"step-000000002", "step-000000003"}


class PairwiseFPMC(FPMC):
    """Draws the items that it compares with."""

    def __init__(self, item_embedding: IdEmbedding, num_users: int, max_len: int) -> None:
        super().__init__(item_embedding, num_users, max_len, bpr=True)


@pytest.mark.parametrize("kind", [GRU4Rec, Caser, FMLPRec, FPMC, PairwiseFPMC, LRURec])
def test_every_backbone_goes_on(kind: Kind, tmp_path: Path) -> None:
    expected = training(tmp_path / "whole", kind=kind)
    with pytest.raises(KilledError):
        training(tmp_path / "killed", Interrupt(expected[1]["steps"] // 2, kill), kind=kind)
    assert_same(training(tmp_path / "killed", kind=kind), expected)


def test_the_masks_of_bert4rec_go_on(tmp_path: Path) -> None:
    # A row has few masked items, so steps of fewer targets: there are as many steps as of other backbones.
    expected = training(tmp_path / "whole", kind=BERT4Rec, batch_size=8)
    steps = expected[1]["steps"]
    assert steps > 2 * EPOCHS
    # In the first pass, at its end, and in the last one.
    for step in (1, steps // EPOCHS, steps - 1):
        with pytest.raises(KilledError):
            training(tmp_path / "killed", Interrupt(step, kill), kind=BERT4Rec, batch_size=8)
    assert_same(training(tmp_path / "killed", kind=BERT4Rec, batch_size=8), expected)


@pytest.mark.parametrize("kind", [Caser, FMLPRec])
def test_what_teams_of_threads_draw_goes_on(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tslrec.data.packing.MIN_MICRO_BATCH", 4)
    by_teams = Mock(wraps=step_loss.summed_by_teams)
    monkeypatch.setattr(step_loss, "summed_by_teams", by_teams)
    with torch_threads(2):
        expected = training(tmp_path / "whole", kind=kind)
        assert by_teams.call_count > expected[1]["steps"] // 2
        with pytest.raises(KilledError):
            training(tmp_path / "killed", Interrupt(expected[1]["steps"] // 2, kill), kind=kind)
        assert_same(training(tmp_path / "killed", kind=kind), expected)


def test_the_negatives_of_a_sampled_softmax_go_on(tmp_path: Path) -> None:
    expected = training(tmp_path / "whole", num_negatives=5)
    with pytest.raises(KilledError):
        training(tmp_path / "killed", Interrupt(5, kill), num_negatives=5)
    assert_same(training(tmp_path / "killed", num_negatives=5), expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_writes_a_checkpoint_and_ends_the_run_with_its_number(
    number: int, whole: Outcome, tmp_path: Path, log_lines: list[str]
) -> None:
    before = signal.getsignal(number)
    with pytest.raises(StoppedError, match=r"stopped by SIG\w+ at step 4; the same command goes on") as stopped:
        training(tmp_path, Interrupt(3, send(number)), every_seconds=1e9)
    assert stopped.value.signal == number
    assert signal.getsignal(number) == before
    assert [each.name for each in tmp_path.glob("stage.checkpoints/*")] == ["step-000000004"]
    assert_same(training(tmp_path), whole)
    assert log_lines == ["test: resumes from step 4"]


def test_a_signal_in_a_validation_ends_the_run_after_the_next_step(
    whole: Outcome, tmp_path: Path, log_lines: list[str]
) -> None:
    with pytest.raises(StoppedError, match="goes on from its last checkpoint"):
        training(tmp_path, Interrupt(1, send(signal.SIGTERM), validating=True), every_seconds=1e9)
    (checkpoint,) = tmp_path.glob("stage.checkpoints/*")
    assert_same(training(tmp_path), whole)
    assert log_lines == [f"test: resumes from step {whole[1]['steps'] // EPOCHS + 1}"]
    assert checkpoint.name == f"step-{whole[1]['steps'] // EPOCHS + 1:09d}"


def test_a_long_validation_is_not_waited_for(whole: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tslrec.training.resuming.GRACE", 0.0)
    with pytest.raises(StoppedError, match=f"at step {whole[1]['steps'] // EPOCHS}; the same command starts it anew"):
        training(tmp_path, Interrupt(1, send(signal.SIGTERM), validating=True), every_seconds=1e9)
    assert_same(training(tmp_path), whole)


@pytest.mark.parametrize("validating", [False, True])
def test_a_signal_in_the_last_step_or_validation_is_not_lost(validating: bool, whole: Outcome, tmp_path: Path) -> None:
    step = whole[1]["steps"] - (0 if validating else 1)
    with pytest.raises(StoppedError) as stopped:
        training(tmp_path, Interrupt(step, send(signal.SIGUSR1), validating=validating))
    assert stopped.value.signal == signal.SIGUSR1
    assert_same(training(tmp_path), whole)


@pytest.mark.parametrize("name", [TREE, TENSORS])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_is_named_and_its_predecessor_taken(
    name: str, damage: str, whole: Outcome, tmp_path: Path, log_lines: list[str]
) -> None:
    with pytest.raises(KilledError):
        training(tmp_path, Interrupt(5, kill))
    newest, _ = sorted(tmp_path.glob("stage.checkpoints/step-*"), reverse=True)
    spoil(newest / STATE / name, damage)
    assert_same(training(tmp_path), whole)
    assert len(log_lines) == 2
    assert log_lines[0].startswith("checkpoint passed over: ")
    assert str(newest / STATE / name) in log_lines[0]
    assert log_lines[1].startswith("test: resumes from step ")


def spoil(path: Path, damage: str) -> None:
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
        return
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "flipped" else content[: len(content) // 2])


def test_without_a_whole_checkpoint_it_begins_anew(whole: Outcome, tmp_path: Path, log_lines: list[str]) -> None:
    with pytest.raises(KilledError):
        training(tmp_path, Interrupt(5, kill))
    for path in tmp_path.glob("stage.checkpoints/*/manifest.json"):
        path.write_text("{")
    assert_same(training(tmp_path), whole)
    assert len(log_lines) == 2


def test_a_checkpoint_holds_nothing_that_executes(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        training(tmp_path, Interrupt(3, kill))
    names = {path.name for path in tmp_path.rglob("*.checkpoints/**/*") if path.is_file()}
    assert names == {TREE, TENSORS, "manifest.json"}
    newest = max(tmp_path.glob("stage.checkpoints/step-*"))
    assert load_file(newest / STATE / TENSORS)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        training(tmp_path, Interrupt(8, kill))
    assert len(list(tmp_path.glob("stage.checkpoints/*"))) == 2


def base_trainers(folder: Path) -> StageTrainers:
    checkpoints = Checkpoints(folder / "checkpoints")
    return StageTrainers(TrainerConfig("cpu"), "base backbone", folder, checkpoints=checkpoints, meter=Meter())


def test_a_gradient_whose_square_overflows_is_finite(tmp_path: Path) -> None:
    class Enlarge(lightning.Callback):
        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            pl_module.backbone.item_embedding.weight.grad[3, 0] = 1e30

    trainer = base_trainers(tmp_path)(max_epochs=1, callbacks=[Enlarge()])
    trainer.fit(
        NextItemModule(SASRec(IdEmbedding(NUM_ITEMS, SIZE), 100, MAX_LEN), learning_rate=1e-2, weight_decay=0.0),
        data_module(market(31)),
    )
    assert trainer.global_step > 2


@pytest.mark.parametrize("spoilt", [float("inf"), float("nan")])
def test_a_gradient_that_is_not_finite_stops_before_the_step(spoilt: float, tmp_path: Path) -> None:
    class Poison(lightning.Callback):
        seen: dict[str, torch.Tensor]

        def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
            if trainer.global_step == 2:
                pl_module.backbone.item_embedding.weight.grad[3, 0] = spoilt
                self.seen = {name: value.clone() for name, value in pl_module.state_dict().items()}
                self.module = pl_module

    poison = Poison()
    trainer = base_trainers(tmp_path)(max_epochs=1, callbacks=[poison])
    module = NextItemModule(SASRec(IdEmbedding(NUM_ITEMS, SIZE), 100, MAX_LEN), learning_rate=1e-2, weight_decay=0.0)
    with pytest.raises(UserError, match=r"base backbone: the gradient is not finite at step 2 \(epoch 0, batch 2\)"):
        trainer.fit(module, data_module(market(31)))
    assert all(torch.equal(value, poison.seen[name]) for name, value in module.state_dict().items())
