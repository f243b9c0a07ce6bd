"""The sampled softmax: its gradient, what it is an unbiased estimate of, what it draws, and a step that uses it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support.devices import assert_close
from tslrec.data.sequence_batch import SequenceBatch, TrainingBatch
from tslrec.models.backbones.caser import Caser
from tslrec.models.backbones.sasrec import SASRec
from tslrec.models.item_embedding import IdEmbedding
from tslrec.training.next_item import NextItemModule
from tslrec.training.sampled_softmax import (
    Negatives,
    NegativeSampler,
    accidental_hits,
    all_hits,
    sampled_softmax_loss,
    sum_by_row,
)

COUNTS_I = np.array([0, 0, 1, 2, 5, 9, 0, 30, 3, 3, 12])
CPU = torch.device("cpu")


def step(
    num_targets: int = 7, num_negatives: int = 6, device: torch.device = CPU
) -> tuple[Tensor, Tensor, Tensor, Negatives]:
    torch.manual_seed(0)
    user_TD = torch.randn(num_targets, 3, dtype=torch.float64).to(device).requires_grad_()
    table_ID = torch.randn(len(COUNTS_I), 3, dtype=torch.float64).to(device).requires_grad_()
    targets_T = torch.randint(1, len(COUNTS_I), (num_targets,)).to(device)
    sampler = NegativeSampler(COUNTS_I, num_negatives=num_negatives, exponent=0.5)
    return user_TD, table_ID, targets_T, sampler.draw(device)


def plain(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor, negatives: Negatives) -> Tensor:
    """The formula, every logit at once."""
    negative_TS = user_TD @ table_ID[negatives.items_S].T - negatives.log_expected_S
    negative_TS = negative_TS.masked_fill(negatives.items_S == targets_T[:, None], -torch.inf)
    target_T1 = (user_TD * table_ID[targets_T]).sum(dim=1, keepdim=True)
    return F.cross_entropy(torch.cat([target_T1, negative_TS], dim=1), torch.zeros_like(targets_T), reduction="sum")


@pytest.mark.parametrize("targets_of_a_chunk", [1, 3, 100])
def test_loss_and_gradient_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch, targets_of_a_chunk: int, device: torch.device
) -> None:
    monkeypatch.setattr("tslrec.training.sampled_softmax.CHUNK_BYTES", {device.type: 6 * 8 * targets_of_a_chunk})
    user_TD, table_ID, targets_T, negatives = step(device=device)
    # Both cases matter: a negative that is the target, and an item that is drawn twice.
    assert torch.isin(targets_T, negatives.items_S).any()
    assert len(negatives.items_S.unique()) < len(negatives.items_S)
    found = sampled_softmax_loss(user_TD, table_ID, targets_T, negatives)
    expected = plain(user_TD, table_ID, targets_T, negatives)
    torch.testing.assert_close(found, expected)
    for gradient, wanted in zip(
        torch.autograd.grad(3 * found, (user_TD, table_ID)),
        torch.autograd.grad(3 * expected, (user_TD, table_ID)),
        strict=True,
    ):
        torch.testing.assert_close(gradient, wanted)


def test_every_item_once_is_the_softmax_over_all_items(device: torch.device) -> None:
    user_TD, table_ID, targets_T, _ = step(device=device)
    items_S = torch.arange(1, len(COUNTS_I), device=device)
    everything = Negatives(items_S, torch.zeros(len(items_S), device=device))
    found = sampled_softmax_loss(user_TD, table_ID, targets_T, everything)
    expected = F.cross_entropy(user_TD @ table_ID[1:].T, targets_T - 1, reduction="sum")
    torch.testing.assert_close(found, expected)
    for gradient, wanted in zip(
        torch.autograd.grad(found, (user_TD, table_ID)), torch.autograd.grad(expected, (user_TD, table_ID)), strict=True
    ):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("exponent", [0.0, 0.75])
def test_the_partition_is_estimated_without_bias(exponent: float) -> None:
    user_TD, table_ID, targets_T, _ = step(num_targets=1)
    sampler = NegativeSampler(COUNTS_I, num_negatives=4, exponent=exponent)
    with torch.no_grad():
        scores_I = (table_ID @ user_TD[0])[1:]
        target = scores_I[targets_T[0] - 1]
        estimates = torch.stack(
            [
                (sampled_softmax_loss(user_TD, table_ID, targets_T, sampler.draw(CPU)) + target).exp()
                for _ in range(4000)
            ]
        )
    error = estimates.std() / len(estimates) ** 0.5
    assert error < 0.05 * scores_I.exp().sum()
    assert abs(estimates.mean() - scores_I.exp().sum()) < 4 * error


def test_many_uniform_negatives_approach_the_gradient_of_the_softmax() -> None:
    user_TD, table_ID, targets_T, _ = step()
    expected = F.cross_entropy(user_TD @ table_ID[1:].T, targets_T - 1, reduction="sum")
    wanted = torch.autograd.grad(expected, table_ID)[0]
    distances = []
    for num_negatives in (4, 400, 40_000):
        negatives = NegativeSampler(COUNTS_I, num_negatives=num_negatives, exponent=0).draw(CPU)
        found = torch.autograd.grad(sampled_softmax_loss(user_TD, table_ID, targets_T, negatives), table_ID)[0]
        distances.append(float((found - wanted).norm() / wanted.norm()))
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.02


@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0])
def test_items_are_drawn_by_their_popularity_to_a_power(exponent: float) -> None:
    torch.manual_seed(0)
    draws = 100_000
    sampler = NegativeSampler(COUNTS_I, num_negatives=draws, exponent=exponent)
    negatives = sampler.draw(CPU)
    weights = (1.0 + torch.from_numpy(COUNTS_I)) ** exponent
    weights[0] = 0
    expected = draws * weights / weights.sum()
    counts = torch.bincount(negatives.items_S, minlength=len(COUNTS_I))
    assert ((counts - expected).abs() <= 5 * expected.sqrt()).all()
    torch.testing.assert_close(negatives.log_expected_S, expected.log()[negatives.items_S].float())
    assert (negatives.items_S.diff() >= 0).all()


def test_torchs_generator_decides_what_is_drawn() -> None:
    sampler = NegativeSampler(COUNTS_I, num_negatives=50, exponent=0.75)
    state = torch.get_rng_state()
    first, second = sampler.draw(CPU), sampler.draw(CPU)
    torch.set_rng_state(state)
    assert torch.equal(first.items_S, sampler.draw(CPU).items_S)
    assert not torch.equal(first.items_S, second.items_S)


@pytest.mark.parametrize("backbone_class", [SASRec, Caser])
def test_a_training_step_has_the_gradient_of_the_whole_table(
    monkeypatch: pytest.MonkeyPatch, backbone_class: type[SASRec] | type[Caser], device: torch.device
) -> None:
    torch.manual_seed(0)
    items_BL = torch.tensor([[3, 4, 9], [5, 7, 0]], device=device)
    lengths_B, users_B = torch.tensor([3, 2], device=device), torch.tensor([0, 1], device=device)
    backbone: Any = backbone_class(IdEmbedding(len(COUNTS_I) - 1, 4), 2, 3).eval().to(device)
    targets = torch.tensor([[4, 9, 2], [7, 10, 0]] if backbone.causal else [2, 10], device=device)
    sampler = NegativeSampler(COUNTS_I, num_negatives=5, exponent=0.75)
    negatives = sampler.draw(device)
    monkeypatch.setattr(sampler, "draw", lambda device: negatives)
    module = NextItemModule(backbone, learning_rate=1e-3, weight_decay=0.0, sampler=sampler)
    monkeypatch.setattr(module, "log", lambda *args, **kwargs: None)
    counted = targets > 0
    batch = TrainingBatch((SequenceBatch(items_BL, lengths_B, users_B, targets),), int(counted.sum()))
    found = module.training_step(batch, 0)

    states = backbone.all_positions if backbone.causal else backbone
    hidden = states(items_BL, lengths_B, users_B)
    table_ID = backbone.item_embedding.table()
    expected = plain(hidden[counted], table_ID, targets[counted], negatives) / counted.sum()
    expected = expected + backbone.regularization()
    assert_close(found, expected)
    parameters = list(backbone.parameters())
    for gradient, wanted in zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        assert_close(gradient, wanted)


def test_on_a_gpu_hits_are_found_by_comparison() -> None:
    negatives_S, targets_C = torch.tensor([1, 2, 2, 5, 9]), torch.tensor([2, 9, 3])
    hits = [(0, 1), (0, 2), (1, 4)]
    assert list(zip(*(each.tolist() for each in accidental_hits(targets_C, negatives_S)), strict=True)) == hits
    assert [tuple(each) for each in all_hits(targets_C, negatives_S).nonzero().tolist()] == hits


def test_on_a_gpu_nothing_waits_for_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on `meta` have no values: an operation that needs one, or whose shape depends on one, fails."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it knows no such device
    user_TD, table_RD = (torch.zeros(size, 3, device="meta", requires_grad=True) for size in (7, 11))
    targets_T, negatives_S = (torch.zeros(size, dtype=torch.int64, device="meta") for size in (7, 5))
    negatives = Negatives(negatives_S, torch.zeros(5, device="meta"))
    loss = sampled_softmax_loss(user_TD, table_RD, targets_T, negatives)
    gradients = torch.autograd.grad(loss, (user_TD, table_RD))
    assert [each.shape for each in gradients] == [user_TD.shape, table_RD.shape]
    with pytest.raises((RuntimeError, NotImplementedError)):
        accidental_hits(targets_T, negatives_S)


def test_an_embeddings_gradient_is_the_sum_by_row() -> None:
    rows = torch.tensor([3, 0, 3, 7]), torch.tensor([7, 1])
    gradients = torch.randn(4, 2), torch.randn(2, 2)
    found = torch.ops.aten.embedding_dense_backward(torch.cat(gradients), torch.cat(rows), 9, -1, False)
    torch.testing.assert_close(found, sum_by_row(rows, gradients, torch.zeros(9, 2)))
