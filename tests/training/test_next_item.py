"""The training loop of backbone and fusion: what micro-batches share, and that positions train what prefixes train."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
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
from tslrec.models.backbones.bert4rec import BERT4Rec
from tslrec.models.backbones.fpmc import FPMC
from tslrec.models.fusions.gate import GatedFusion
from tslrec.models.item_embedding import IdEmbedding
from tslrec.stages.building import build_backbone
from tslrec.training.next_item import NextItemModule
from tslrec.training.pairwise_loss import other_items
from tslrec.training.sampled_softmax import NegativeSampler
from tslrec.training.used_rows import narrowed, placed

MAX_LEN = 9


def histories(lengths: list[int]) -> Interactions:
    draw = np.random.default_rng(0)
    return make_interactions([draw.integers(1, 21, length).tolist() for length in lengths], num_items=20)


def data_of(interactions: Interactions, **settings: Any) -> SequenceDataModule:
    """Training steps of 24 targets where nothing else is said."""
    chosen = {"batch_size": 24, "all_positions": False, **settings}
    return SequenceDataModule(interactions, max_len=MAX_LEN, eval_batch_size=8, seed=0, **chosen)


def summed_gradient(
    module: NextItemModule, interactions: Interactions, *, all_positions: bool, packed: bool = False
) -> tuple[float, Tensor]:
    """The loss of one pass over all training targets, summed over them, and its gradient."""
    data = data_of(interactions, all_positions=all_positions, packed=packed)
    module.zero_grad()
    total, targets = 0.0, 0
    for step, batch in enumerate(data.train_dataloader()):
        loss = module.training_step(batch, step) * batch.num_targets
        loss.backward()
        total, targets = total + float(loss.detach()), targets + batch.num_targets
    assert targets == int((interactions.train_lengths - 1).sum())
    return total, torch.cat(
        [parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None]
    )


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize(("name", "packed"), [("gru4rec", False), ("sasrec", False), ("sasrec", True), ("fpmc", False)])
def test_all_positions_train_what_all_prefixes_train(name: str, packed: bool) -> None:
    torch.manual_seed(0)
    model = yaml.safe_load(Path(CHECKOUT / "configs" / "model" / f"{name}.yaml").read_text())
    backbone = build_backbone(model, IdEmbedding(20, 8), num_users=6, max_len=MAX_LEN).double()
    module = NextItemModule(backbone, learning_rate=1e-3, weight_decay=0.0)
    for part in backbone.modules():
        part.eval()
    # Up to max_len inputs there are no overlapping windows, and nothing is approximated.
    interactions = histories([3, 4, 7, 9, 11, 12])
    loss, gradient = summed_gradient(module, interactions, all_positions=True, packed=packed)
    expected_loss, expected_gradient = summed_gradient(module, interactions, all_positions=False)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-11)
    assert gradient.abs().max() > 0.01


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    with torch_threads(request.param):
        yield request.param


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("num_negatives", [None, 12])
@pytest.mark.parametrize("name", ["caser", "caser, its own output", "fmlp", "lru"])
def test_micro_batches_of_prefixes_give_the_gradient_of_their_step(
    name: str, num_negatives: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the whole step as one graph, with an item table that is computed; a team for each thread."""
    monkeypatch.setattr("tslrec.data.packing.FIXED_MICRO_BATCH", 7)
    torch.manual_seed(0)
    model = yaml.safe_load(Path(CHECKOUT / "configs" / "model" / f"{name.split(',')[0]}.yaml").read_text())
    if name.endswith("output"):
        model |= {"own_output": True, "use_user_embedding": True}
    items = GatedFusion(20, 8, knowledge_IH=torch.randn(21, 5))
    backbone = build_backbone(model, items, num_users=6, max_len=MAX_LEN).double()
    sampler = num_negatives and NegativeSampler(np.ones(21, dtype=np.int64), num_negatives=num_negatives, exponent=0.0)
    module = NextItemModule(backbone, learning_rate=1e-3, weight_decay=0.0, sampler=sampler or None)
    for part in backbone.modules():
        part.eval()
    data = data_of(histories([3, 4, 7, 9, 11, 12]), fixed_window=backbone.fixed_window)
    batch = next(iter(data.train_dataloader()))
    assert len(batch.parts) > 1

    def in_one_graph() -> Tensor:
        negatives, table_ID, step = None, items.table(), batch
        output_IE = backbone.output_table(table_ID)
        if sampler:
            rows_R, step, negatives = placed(batch, sampler.draw(torch.device("cpu")))
            table_ID, output_IE = items.rows(rows_R), output_IE[rows_R]
        encoded = [module.step_loss.encoded(rows, rows.items_BL, table_ID) for rows in step.parts]
        users, targets = (torch.cat(each) for each in zip(*encoded, strict=True))
        loss = module.step_loss.of_users(users, targets, output_IE, negatives) / batch.num_targets
        return loss + backbone.regularization(None if sampler else table_ID)

    losses, gradients = [], []
    for compute in (lambda: module.training_step(batch, 0), in_one_graph):
        torch.manual_seed(1)
        losses.append(compute())
        gradients.append(torch.autograd.grad(2 * losses[-1], list(module.parameters())))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
        assert found.abs().max() > 0


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("name", ["caser", "fmlp", "lru"])
def test_what_a_step_draws_follows_from_its_seed(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever thread comes first. Of equal micro-batches each has draws of its own."""
    monkeypatch.setattr("tslrec.data.packing.FIXED_MICRO_BATCH", 4)
    model = yaml.safe_load(Path(CHECKOUT / "configs" / "model" / f"{name}.yaml").read_text())
    backbone = build_backbone(model, IdEmbedding(20, 8), num_users=6, max_len=MAX_LEN)
    module = NextItemModule(backbone, learning_rate=1e-3, weight_decay=0.0)
    data = data_of(histories([3, 4, 7, 9, 11, 12]), batch_size=12, fixed_window=backbone.fixed_window)
    batch = next(iter(data.train_dataloader()))
    part = batch.parts[0]
    twins = batch._replace(parts=(part, part, part), num_targets=3 * len(part.targets))

    def gradients(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return list(torch.autograd.grad(module.training_step(twins, 0), list(module.parameters())))

    first = gradients(1)
    for _ in range(5):
        assert all(map(torch.equal, gradients(1), first))
    assert not all(map(torch.equal, gradients(2), first))

    seen: list[Tensor] = []
    encode = backbone.forward

    def noted(*inputs: Tensor) -> Tensor:
        seen.append(encode(*inputs))
        return seen[-1]

    monkeypatch.setattr(backbone, "forward", noted)
    gradients(1)
    assert len(seen) == 3 * threads
    assert not any(torch.equal(one, other) for one, other in combinations(seen, 2))


def test_packed_rows_hold_what_windows_hold() -> None:
    """Long histories too, whose windows overlap and skip the targets that another window has."""
    interactions = histories([30, 3, 4, 7, 25, 9, 11, 12, 60, 5, 3])

    def targets(*, packed: bool) -> tuple[list[tuple[int, ...]], int]:
        data = data_of(interactions, batch_size=40, all_positions=True, packed=packed)
        found, rows = [], 0
        for batch in data.train_dataloader():
            for part in batch.parts:
                rows += len(part.items_BL)
                for row in range(len(part.items_BL)):
                    if part.packing is None:
                        places = [torch.arange(int(part.lengths_B[row]))]
                    else:
                        here = part.packing.sequences_BL[row]
                        places = [(here == each).nonzero()[:, 0] for each in here.unique() if each >= 0]
                        for place in places:
                            assert part.packing.positions_BL[row, place].tolist() == list(range(len(place)))
                    for place in places:
                        pairs = torch.stack([part.items_BL[row, place], part.targets[row, place]], dim=1)
                        found.append(tuple(pairs.flatten().tolist()))
                        assert len(place) <= MAX_LEN
        return sorted(found), rows

    (apart, many), (packed, few) = targets(packed=False), targets(packed=True)
    assert packed == apart
    assert few < many


def test_the_narrowed_table_gives_the_same_vectors_and_gradient() -> None:
    torch.manual_seed(0)
    table = torch.randn(12, 3, requires_grad=True)
    inputs = [torch.tensor([[3, 5, 0], [7, 0, 0]]), torch.tensor([[5, 11]])]
    rows, places = narrowed(table, inputs)
    assert rows.shape == (5, 3)
    found = [F.embedding(place, rows, padding_idx=0) for place in places]
    wanted = [F.embedding(items, table, padding_idx=0) for items in inputs]
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)
    gradients = [
        torch.autograd.grad(torch.cat([each.flatten() for each in vectors]).square().sum(), table)[0]
        for vectors in (found, wanted)
    ]
    torch.testing.assert_close(*gradients)
    assert not gradients[0][0].any()


def test_padding_keeps_its_place_where_no_input_is_padded() -> None:
    rows, places = narrowed(torch.arange(4.0)[:, None], [torch.tensor([[2, 3]])])
    assert rows[:, 0].tolist() == [0, 2, 3]
    assert places[0].tolist() == [[1, 2]]


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("num_negatives", [None, 12])
@pytest.mark.parametrize("recbole_rules", [False, True])
def test_masked_items_are_told_row_by_row(num_negatives: int | None, recbole_rules: bool) -> None:
    """A packed step of an item table that is computed, against each of its rows alone, with a bias in the scores."""
    torch.manual_seed(0)
    items = GatedFusion(20, 8, knowledge_IH=torch.randn(21, 5))
    backbone = BERT4Rec(items, 6, MAX_LEN, inner_size=16, recbole_rules=recbole_rules).double().eval()
    torch.nn.init.normal_(backbone.output_bias_I)
    sampler = num_negatives and NegativeSampler(np.ones(21, dtype=np.int64), num_negatives=num_negatives, exponent=0.0)
    module = NextItemModule(backbone, learning_rate=1e-3, weight_decay=0.0, sampler=sampler or None).eval()
    data = data_of(histories([3, 4, 7, 9, 11, 12, 30]), masking=backbone.masking)
    for batch in data.train_dataloader():
        torch.manual_seed(1)
        loss = module.training_step(batch, 0)
        found = torch.autograd.grad(loss, list(module.parameters()))
        torch.manual_seed(1)
        negatives = sampler.draw(torch.device("cpu")) if sampler else None
        table_ID = items.table()
        output_IE = torch.cat([table_ID, backbone.output_bias_I[:, None]], dim=1)
        (part,) = batch.parts
        assert part.packing is not None
        total = torch.zeros((), dtype=torch.float64)
        for sequence in range(int(part.packing.sequences_BL.max()) + 1):
            here = part.packing.sequences_BL == sequence
            shown, targets = part.items_BL[here][None], part.targets[here]
            state = backbone.all_positions(shown, torch.tensor([shown.shape[1]]), torch.tensor([0]), table_ID)[0]
            total = total + module.step_loss.of_users(state[targets > 0], targets[targets > 0], output_IE, negatives)
        expected = total / batch.num_targets
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
        for ours, wanted in zip(found, torch.autograd.grad(expected, list(module.parameters())), strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
def test_bpr_compares_each_target_with_one_other_item() -> None:
    torch.manual_seed(0)
    fpmc = FPMC(IdEmbedding(20, 8), 6, MAX_LEN, bpr=True).double()
    module = NextItemModule(fpmc, learning_rate=1e-3, weight_decay=0.0)
    data = data_of(histories([3, 4, 7, 9, 11, 12]), all_positions=True)
    for batch in data.train_dataloader():
        torch.manual_seed(1)
        loss = module.training_step(batch, 0)
        torch.manual_seed(1)
        users, targets = zip(
            *(module.step_loss.encoded(rows, rows.items_BL, fpmc.table(None)) for rows in batch.parts), strict=True
        )
        others = other_items(torch.cat(targets), 20)
        scores = torch.cat(users) @ fpmc.own_output_IE.T
        margin = scores.gather(1, torch.cat(targets)[:, None]) - scores.gather(1, others[:, None])
        torch.testing.assert_close(loss, F.softplus(-margin).mean(), rtol=1e-8, atol=0)


def test_other_items_are_drawn_uniformly_and_are_never_the_target() -> None:
    torch.manual_seed(0)
    targets = torch.arange(1, 6).repeat(20_000)
    drawn = other_items(targets, 5)
    assert not (drawn == targets).any()
    counts = torch.bincount(targets * 6 + drawn, minlength=36).view(6, 6)[1:, 1:]
    expected = 20_000 / 4
    assert ((counts - expected).abs() <= 5 * expected**0.5)[~torch.eye(5, dtype=torch.bool)].all()
