"""Steps of fixed shapes train what steps of the other way train: losses, gradients, whole trainings, resumed ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from support.killed_training import Kill, KilledError
from support.static_cases import BACKBONES, TABLES, data_for, make_backbone
from tslrec.models.backbones import lru
from tslrec.models.backbones.base import Backbone
from tslrec.models.backbones.bert4rec import BERT4Rec
from tslrec.models.backbones.fpmc import FPMC
from tslrec.models.item_embedding import IdEmbedding
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages import recommender
from tslrec.stages.recommender import STEPS_PER_BATCH, steps_for, steps_per_batch
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter
from tslrec.training import static_training
from tslrec.training.best_weights import selection_callbacks
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.next_item import NextItemModule
from tslrec.training.resuming import fit
from tslrec.training.static_training import StaticTraining, static_step, summed_loss
from tslrec.training.target_mix import TargetMix
from tslrec.training.trainer import StageTrainers

CPU = torch.device("cpu")


def gradient(backbone: Backbone, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(backbone.parameters()))
    return torch.cat([each.flatten() for each in found])


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", BACKBONES)
def test_a_static_step_has_the_loss_and_gradient_of_its_step(name: str, table: str) -> None:
    backbone = make_backbone(name, table).double()
    module = NextItemModule(backbone, learning_rate=1e-3, weight_decay=0.0)
    batches = list(data_for(backbone).train_dataloader())
    compared = 0
    for group in data_for(backbone, steps_per_batch=3).train_dataloader():
        for fields_FW, shape in zip(group.fields_SFW, group.shapes, strict=True):
            step = static_step(fields_FW, group.items.on(CPU), shape)
            table_ID = backbone.item_embedding.table()
            loss = summed_loss(backbone, step, table_ID) / step.weights_T.sum() + backbone.regularization(table_ID)
            expected = module.training_step(batches[compared], compared)
            torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
            found, wanted = gradient(backbone, loss), gradient(backbone, expected)
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-11)
            assert wanted.abs().max() > 1e-3
            compared += 1
    assert compared == len(batches) > 8


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("name", BACKBONES)
def test_the_loss_that_does_not_wait_is_the_same(name: str) -> None:
    """The way that a GPU takes under DDP; here on the CPU."""
    backbone = make_backbone(name).double()
    module = NextItemModule(backbone, learning_rate=1e-3, weight_decay=0.0)
    for batch in list(data_for(backbone).train_dataloader())[:3]:
        table_ID = backbone.item_embedding.table()
        output_IE = backbone.output_table(table_ID)
        found = module.step_loss.without_waiting(batch, table_ID, output_IE)
        wanted = module.step_loss.of_tables(batch, table_ID, output_IE)
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0)
        used = [each for each in backbone.parameters() if each.requires_grad]
        gradients = [torch.autograd.grad(each, used, allow_unused=True) for each in (found, wanted)]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


class Operators(TorchDispatchMode):
    """Notes the operators that run, and indexing by booleans."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func.name())
        if func.name().startswith(("aten::index.", "aten::index_put", "aten::_index_put")):
            assert all(each is None or each.dtype != torch.bool for each in args[1]), "an index of booleans"
        return func(*args, **(kwargs or {}))


WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "equal", "repeat_interleave")
"""Operators whose result the host would have to read, or that copy a Python value to the device."""


def weighted_cross_entropy(
    user_TE: Tensor, output_IE: Tensor, targets_T: Tensor, weights_T: Tensor, mix: TargetMix | None
) -> Tensor:
    assert mix is None
    losses_T = F.cross_entropy(user_TE @ output_IE[1:].T, (targets_T - 1).clamp(min=0), reduction="none")
    return (losses_T * weights_T).sum()


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", BACKBONES)
def test_a_step_does_nothing_that_a_graph_cannot_hold(name: str, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward pass, backward pass and optimizer; the loss alone has a test of its own device."""
    monkeypatch.setattr(static_training, "softmax_loss", weighted_cross_entropy)
    # The form of the recurrence that a GPU takes.
    monkeypatch.setattr(lru, "goes_by_steps", lambda items_BL: False)
    backbone = make_backbone(name, table)
    optimizer = torch.optim.Adam(backbone.parameters(), fused=True)
    training = StaticTraining(backbone, optimizer, torch.zeros(2, dtype=torch.float64))
    group = next(iter(data_for(backbone, steps_per_batch=3).train_dataloader()))
    training.run(group)
    operators = Operators()
    with operators:
        training.step(group.fields_SFW[0], group.shapes[0])
    assert any("_fused_adam" in each for each in operators.seen)
    assert any("backward" in each for each in operators.seen)
    assert [each for each in operators.seen if any(name in each for name in WAITING)] == []


def test_the_operators_that_wait_are_noticed() -> None:
    operators = Operators()
    with operators:
        float(torch.ones(()) + 1)
        torch.ones(2).nonzero()
        torch.tensor([1, 2])
    assert sum(any(name in each for name in WAITING) for each in operators.seen) == 3
    with operators, pytest.raises(AssertionError, match="booleans"):
        torch.ones(2)[torch.tensor([True, False])]


Outcome = tuple[dict[str, Tensor], dict[str, Any], bytes]


def training(
    folder: Path,
    name: str,
    *,
    together: int,
    dropout: bool = False,
    dtype: torch.dtype = torch.float32,
    callbacks: tuple[lightning.Callback, ...] = (),
    label_smoothing: float = 0.0,
    **settings: Any,
) -> Outcome:
    """A training of three epochs with a checkpoint after every batch: its weights, its best evaluation and its log."""
    lightning.seed_everything(3, verbose=False)
    backbone = make_backbone(name, dropout=dropout).to(dtype)
    data = data_for(backbone, steps_per_batch=together, **settings)
    module = NextItemModule(
        backbone, learning_rate=1e-2, weight_decay=0.0, steps_per_batch=together, label_smoothing=label_smoothing
    )
    best, selection = selection_callbacks("masked", patience=10)
    log = folder / "stage"
    if log.exists():
        # As the artifact store does with what a killed process left.
        shutil.rmtree(log)
    trainer = StageTrainers(
        TrainerConfig("cpu", checkpoint_seconds=0.0),
        "test",
        log,
        checkpoints=Checkpoints(folder / "stage.checkpoints"),
        meter=Meter(),
    )(max_epochs=3, callbacks=[*selection, *callbacks])
    fit(trainer, module, data)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    state = {"best": best.state_dict(), "steps": trainer.global_step, "epochs": trainer.current_epoch}
    return weights, state, (log / "log" / "metrics.csv").read_bytes()


@pytest.mark.parametrize("steps_per_epoch", [None, 7])
@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "caser, its own output", "fmlp", "fpmc", "lru"])
def test_groups_of_steps_train_what_single_steps_train(name: str, steps_per_epoch: int | None, tmp_path: Path) -> None:
    """In float64: in float32, Adam makes steps of mere rounding errors where a gradient is zero, as a key's bias's."""
    single, grouped = (
        training(
            tmp_path / str(together), name, together=together, dtype=torch.float64, steps_per_epoch=steps_per_epoch
        )
        for together in (1, 4)
    )
    assert grouped[1]["steps"] == single[1]["steps"] > 20
    assert grouped[1]["epochs"] == single[1]["epochs"] == 3
    for key, value in single[0].items():
        torch.testing.assert_close(grouped[0][key], value, rtol=1e-6, atol=1e-8)
    tables = [pl.read_csv(content) for _, _, content in (single, grouped)]
    assert tables[0].columns == tables[1].columns
    assert tables[0]["step"].to_list() == tables[1]["step"].to_list()
    losses = [table["train/loss"].drop_nulls().to_list() for table in tables]
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-8)


def test_groups_of_steps_smooth_labels_as_single_steps_do(tmp_path: Path) -> None:
    single, grouped, hard = (
        training(tmp_path / name, "sasrec", together=together, dtype=torch.float64, label_smoothing=smoothing)[0]
        for name, together, smoothing in (("single", 1, 0.2), ("grouped", 4, 0.2), ("hard", 4, 0.0))
    )
    for key, value in single.items():
        torch.testing.assert_close(grouped[key], value, rtol=1e-6, atol=1e-8)
    assert not torch.allclose(hard["backbone.item_embedding.weight"], grouped["backbone.item_embedding.weight"])


@pytest.mark.parametrize("name", ["sasrec", "gru4rec", "caser", "fmlp", "lru"])
def test_a_killed_training_in_groups_ends_as_if_it_had_not_been(name: str, tmp_path: Path) -> None:
    """Bit for bit, with dropout; killed in an epoch, at its end, and in the next one."""
    whole = training(tmp_path / "whole", name, together=5, dropout=True)
    epoch = whole[1]["steps"] // 3
    assert epoch % 5 != 0
    for step in (4, epoch, epoch + 5, 2 * epoch + 1):
        with pytest.raises(KilledError):
            training(tmp_path / "killed", name, together=5, dropout=True, callbacks=(Kill(step),))
    found = training(tmp_path / "killed", name, together=5, dropout=True)
    assert all(torch.equal(found[0][key], value) for key, value in whole[0].items())
    assert found[1]["steps"] == whole[1]["steps"]
    assert found[1]["best"]["metrics"] == whole[1]["best"]["metrics"]
    assert found[1]["best"]["epoch"] == whole[1]["best"]["epoch"]
    assert found[2] == whole[2]


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1)])
def test_a_checkpoint_of_the_other_way_is_refused(before: int, after: int, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        training(tmp_path, "sasrec", together=before, callbacks=(Kill(4),))
    with pytest.raises(UserError, match=rf"counts {before} optimizer steps per batch, this training {after}; use the"):
        training(tmp_path, "sasrec", together=after)


class Poison(lightning.Callback):
    """Makes the gradient of the item table infinite in one step, and notes the weights before it."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.calls = 0
        self.before: dict[str, Tensor] = {}

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.module = pl_module
        pl_module.backbone.item_embedding.weight.register_hook(self.spoilt)

    def spoilt(self, gradient: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.step:
            self.before = {name: value.clone() for name, value in self.module.state_dict().items()}
            gradient = gradient.clone()
            gradient[3, 0] = float("inf")
        return gradient


@pytest.mark.parametrize("step", [2, 6, 10_000])
def test_a_step_that_is_not_finite_changes_no_weight_and_ends_the_training(step: int, tmp_path: Path) -> None:
    poison = Poison(step)
    if step > 1000:
        assert training(tmp_path, "sasrec", together=4, callbacks=(poison,))[1]["epochs"] == 3
        return
    with pytest.raises(UserError, match=r"test: the loss or a gradient is not finite at step \d+ \(epoch 0, batch"):
        training(tmp_path, "sasrec", together=4, callbacks=(poison,))
    assert poison.module.nonfinite_flag.item() is True
    assert all(torch.equal(value, poison.before[name]) for name, value in poison.module.state_dict().items())
    # The newest checkpoint was written before that step.
    steps = [int(each.name.removeprefix("step-")) for each in tmp_path.glob("stage.checkpoints/step-*")]
    assert max(steps, default=0) == (step - 1) // 4 * 4


def changed(**values: Any) -> Callable[[], tuple[TrainerConfig, TrainingConfig]]:
    def make() -> tuple[TrainerConfig, TrainingConfig]:
        trainer, chosen = TrainerConfig("gpu", accelerator="gpu"), TrainingConfig()
        for name, value in values.items():
            setattr(trainer if hasattr(trainer, name) else chosen, name, value)
        return trainer, chosen

    return make


@pytest.mark.parametrize(
    ("configs", "together"),
    [
        (changed(), STEPS_PER_BATCH),
        (changed(accelerator="cuda", devices="1"), STEPS_PER_BATCH),
        (changed(accelerator="cpu"), 1),
        (changed(precision="32"), STEPS_PER_BATCH),
        (changed(devices=2), 1),
        (changed(devices=-1), 1),
        (changed(num_nodes=2), 1),
        (changed(strategy="ddp"), 1),
        (changed(precision="bf16-mixed"), 1),
        (changed(step_graphs=False), 1),
        (changed(num_negatives=100), 1),
    ],
)
def test_steps_are_grouped_where_they_can_be_graphs(
    configs: Callable[[], tuple[TrainerConfig, TrainingConfig]], together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender.torch.cuda, "is_available", lambda: True)
    assert steps_per_batch(*configs()) == together
    assert steps_for(make_backbone("sasrec"), *configs()) == together
    monkeypatch.setattr(recommender.torch.cuda, "is_available", lambda: False)
    assert steps_per_batch(*configs()) == 1


@pytest.mark.parametrize(
    ("make", "drawn"),
    [
        (lambda items: BERT4Rec(items, 1, 5), "masks of BERT4Rec"),
        (lambda items: FPMC(items, 1, 5, bpr=True), "items to compare with of FPMC"),
    ],
)
def test_steps_of_which_the_host_draws_a_part_are_no_graphs_and_the_log_says_so(
    make: Callable[[IdEmbedding], Backbone], drawn: str, monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    backbone = make(IdEmbedding(20, 8))
    monkeypatch.setattr(recommender.torch.cuda, "is_available", lambda: True)
    assert steps_for(backbone, *changed()()) == 1
    assert log_lines == [f"no CUDA graphs of steps: the host draws the {drawn} for each step"]
    assert steps_for(backbone, *changed(accelerator="cpu")()) == 1
    assert len(log_lines) == 1


def test_the_log_names_the_setting_that_stands_in_the_way(
    monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    monkeypatch.setattr(recommender.torch.cuda, "is_available", lambda: True)
    assert steps_per_batch(*changed(devices=[1])()) == 1
    assert log_lines == ["no CUDA graphs of steps: trainer.devices=[1], with graphs where it is 1"]
