"""Trainings on distributions instead of items: every way through the data trains what PyTorch's cross-entropy says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from support.checkout import CHECKOUT
from support.interactions import make_interactions
from support.threads import torch_threads
from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.interactions import Interactions
from tslrec.data.windows import all_prefixes
from tslrec.models.backbones.base import Backbone
from tslrec.models.backbones.bert4rec import BERT4Rec
from tslrec.models.item_embedding import IdEmbedding
from tslrec.stages import recommender
from tslrec.stages.building import build_backbone
from tslrec.stages.recommender import steps_for
from tslrec.training.next_item import NextItemModule
from tslrec.training.soft_targets import SoftTargets

ITEMS, COUNT, MAX_LEN, WEIGHT = 20, 4, 9, 0.6

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")


def market() -> Interactions:
    """Up to MAX_LEN inputs, so that windows train exactly what prefixes do."""
    draw = np.random.default_rng(0)
    return make_interactions([draw.integers(1, 21, length).tolist() for length in [3, 4, 7, 9, 11, 12, 2, 1]], ITEMS)


def random_targets(interactions: Interactions) -> SoftTargets:
    """Other items and shares for each target of a market."""
    draw = np.random.default_rng(1)
    is_target_N = interactions.is_training_N
    is_target_N[interactions.offsets[:-1]] = False
    rows = int(is_target_N.sum())
    items_XK = np.array([draw.permutation(ITEMS)[:COUNT] + 1 for _ in range(rows)], dtype=np.int32)
    shares_XK = torch.from_numpy(draw.normal(size=(rows, COUNT))).softmax(dim=1)
    return SoftTargets(torch.from_numpy(items_XK), shares_XK, torch.from_numpy(is_target_N), WEIGHT)


def backbone_of(name: str) -> Backbone:
    torch.manual_seed(0)
    model: dict[str, Any] = yaml.safe_load(Path(CHECKOUT / "configs" / "model" / f"{name}.yaml").read_text())
    backbone = build_backbone(model, IdEmbedding(ITEMS, 8), num_users=8, max_len=MAX_LEN).double()
    for part in backbone.modules():
        part.eval()
    return backbone


def data_of(interactions: Interactions, backbone: Backbone, **settings: Any) -> SequenceDataModule:
    chosen = {"batch_size": 24, "fixed_window": backbone.fixed_window, "with_places": True, **settings}
    return SequenceDataModule(interactions, max_len=MAX_LEN, eval_batch_size=8, seed=0, **chosen)


def expected(backbone: Backbone, interactions: Interactions, soft: SoftTargets, smoothing: float) -> Tensor:
    """The loss of all targets, prefix by prefix."""
    total = torch.zeros((), dtype=torch.float64)
    prefixes = all_prefixes(interactions, MAX_LEN)
    for row, (user, start, end) in enumerate(zip(prefixes.users, prefixes.starts, prefixes.ends, strict=True)):
        items_1L = torch.from_numpy(interactions.items[start:end].astype(np.int64))[None]
        user_1E = backbone(items_1L, torch.tensor([end - start]), torch.tensor([user]))
        wanted_1I = torch.zeros(1, ITEMS, dtype=torch.float64)
        wanted_1I[0, interactions.items[end] - 1] = 1 - WEIGHT
        wanted_1I[0, soft.items_XK[row].long() - 1] += WEIGHT * soft.shares_XK[row]
        output_IE = backbone.output_table(backbone.item_embedding.table())
        wanted_1I = (1 - smoothing) * wanted_1I + smoothing / ITEMS
        total = total + F.cross_entropy(user_1E @ output_IE[1:].T, wanted_1I)
    return total


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with torch_threads(request.param):
        yield request.param


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gru4rec", {"all_positions": True}),
        ("sasrec", {"all_positions": True, "packed": True}),
        ("lru", {"all_positions": False}),
        ("caser", {"all_positions": False}),
        ("fmlp", {"all_positions": False}),
    ],
)
def test_a_step_is_the_cross_entropy_of_each_prefix(
    name: str, settings: dict[str, Any], smoothing: float, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether micro-batches share a graph, are differentiated one by one, or by a team for each thread."""
    monkeypatch.setattr("tslrec.data.packing.FIXED_MICRO_BATCH", 7)
    interactions, backbone = market(), backbone_of(name)
    soft = random_targets(interactions)
    module = NextItemModule(
        backbone, learning_rate=1e-3, weight_decay=0.0, label_smoothing=smoothing, soft_targets=soft
    )
    module.zero_grad()
    total = 0.0
    for step, batch in enumerate(data_of(interactions, backbone, **settings).train_dataloader()):
        loss = (module.training_step(batch, step) - backbone.regularization()) * batch.num_targets
        loss.backward()
        total += float(loss.detach())
    trained = [each for each in backbone.parameters() if each.grad is not None]
    wanted = expected(backbone, interactions, soft, smoothing)
    assert total == pytest.approx(float(wanted.detach()), rel=1e-11)
    for parameter, gradient in zip(trained, torch.autograd.grad(wanted, trained), strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["sasrec", "fmlp"])
def test_a_gpu_trains_the_same(name: str) -> None:
    """The path of a GPU, where no shape depends on a value: each position is scored, and some count for nothing."""
    interactions, backbone = market(), backbone_of(name)
    module = NextItemModule(
        backbone, learning_rate=1e-3, weight_decay=0.0, label_smoothing=0.1, soft_targets=random_targets(interactions)
    )
    batch = next(iter(data_of(interactions, backbone, all_positions=backbone.causal, packed=True).train_dataloader()))
    table_ID = backbone.item_embedding.table()
    found = module.step_loss.without_waiting(batch, table_ID, table_ID)
    torch.testing.assert_close(found, module.step_loss.of_tables(batch, table_ID, table_ID))


def test_a_masked_backbone_smooths_its_labels() -> None:
    torch.manual_seed(0)
    backbone = BERT4Rec(IdEmbedding(ITEMS, 8), 8, MAX_LEN).double().eval()
    module = NextItemModule(backbone, learning_rate=1e-3, weight_decay=0.0, label_smoothing=0.3)
    data = SequenceDataModule(
        market(),
        max_len=MAX_LEN,
        batch_size=24,
        eval_batch_size=8,
        seed=0,
        all_positions=True,
        masking=backbone.masking,
    )
    batch = next(iter(data.train_dataloader()))
    (part,) = batch.parts
    table_ID = backbone.item_embedding.table()
    user_TE, targets_T = module.step_loss.encoded(part, part.items_BL, table_ID)
    logits_TI = user_TE @ backbone.output_table(table_ID)[1:].T
    wanted = F.cross_entropy(logits_TI, targets_T - 1, label_smoothing=0.3, reduction="sum")
    assert len(targets_T) > 5
    torch.testing.assert_close(module.training_step(batch, 0) * batch.num_targets, wanted)


def test_they_are_no_part_of_the_weights() -> None:
    backbone = backbone_of("gru4rec")
    module = NextItemModule(backbone, learning_rate=1e-3, weight_decay=0.0, soft_targets=random_targets(market()))
    assert set(module.state_dict()) == {f"backbone.{name}" for name in backbone.state_dict()}


def test_steps_that_look_up_soft_targets_are_no_graphs_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, log_lines: list[str]
) -> None:
    from tslrec.settings.trainer import TrainerConfig
    from tslrec.settings.training import TrainingConfig

    monkeypatch.setattr(recommender.torch.cuda, "is_available", lambda: True)
    backbone, on_gpu = backbone_of("sasrec"), TrainerConfig("gpu", accelerator="gpu", devices=1)
    assert steps_for(backbone, on_gpu, TrainingConfig(label_smoothing=0.1)) > 1
    assert steps_for(backbone, on_gpu, TrainingConfig(), taught=True) == 1
    assert log_lines == ["no CUDA graphs of steps: each step looks up its soft targets"]
    assert steps_for(backbone, TrainerConfig("cpu"), TrainingConfig(), taught=True) == 1
    assert len(log_lines) == 1
