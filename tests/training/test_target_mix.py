"""The softmax against distributions is PyTorch's cross-entropy with probabilities, in value and in gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tslrec.training import softmax_on_device as on_device
from tslrec.training.losses import softmax_loss, softmax_on_cpu
from tslrec.training.softmax_on_device import softmax_on_device
from tslrec.training.target_mix import TargetMix, target_mix

USERS, ITEMS, SIZE, COUNT = 37, 211, 3, 9
WAYS = {"cpu": softmax_on_cpu, "device": softmax_on_device}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 users on a CPU, of 16 elsewhere."""
    monkeypatch.setattr("tslrec.training.losses.CHUNK_BYTES", 8 * ITEMS * 4)
    for name, value in {"CHUNK_BYTES": 0, "LEAST_USERS": 16, "LEAST_STRETCH": 2, "PARTIAL_SUMS": 16 * 3 * 5}.items():
        monkeypatch.setattr(on_device, name, value)


def factors(scale: float = 1.0, device: torch.device | None = None) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    user_BD = (scale * torch.randn(USERS, SIZE, dtype=torch.float64)).to(device)
    table_ID = (scale * torch.randn(ITEMS + 1, SIZE, dtype=torch.float64)).to(device)
    return user_BD, table_ID, torch.randint(1, ITEMS + 1, (USERS,)).to(device)


def soft(targets_B: Tensor) -> tuple[Tensor, Tensor]:
    """Items and shares, of which every other target is among its own; the last place of each row is empty."""
    torch.manual_seed(1)
    items_BK = torch.stack([torch.randperm(ITEMS)[:COUNT] + 1 for _ in range(USERS)]).to(targets_B.device)
    absent_B = ~(items_BK == targets_B[:, None]).any(dim=1)
    absent_B[::2] = False
    items_BK[absent_B, 0] = targets_B[absent_B]
    shares_BK = torch.randn(USERS, COUNT, dtype=torch.float64)
    shares_BK[:, -1] = -torch.inf
    items_BK[:, -1] = 0
    return items_BK, shares_BK.softmax(dim=1).to(targets_B.device)


def made(smoothing: float, weight: float, targets_B: Tensor) -> tuple[TargetMix | None, Tensor]:
    """The mix, and the same as probabilities `[B, I]` by PyTorch's own operations."""
    wanted_BI = F.one_hot((targets_B - 1).clamp(min=0), ITEMS).double()
    if weight == 0:
        return target_mix(smoothing), (1 - smoothing) * wanted_BI + smoothing / ITEMS
    items_BK, shares_BK = soft(targets_B)
    soft_BI = torch.zeros_like(wanted_BI).scatter_add_(1, (items_BK - 1).clamp(min=0), shares_BK)
    wanted_BI = (1 - weight) * wanted_BI + weight * soft_BI
    return target_mix(smoothing, weight, items_BK, shares_BK), (1 - smoothing) * wanted_BI + smoothing / ITEMS


def plain(user_BD: Tensor, table_ID: Tensor, wanted_BI: Tensor, weights_B: Tensor) -> tuple[Tensor, ...]:
    user_BD, table_ID = user_BD.clone().requires_grad_(), table_ID.clone().requires_grad_()
    losses_B = F.cross_entropy(user_BD @ table_ID[1:].T, wanted_BI, reduction="none")
    loss = (losses_B * weights_B).sum()
    return (loss.detach(), *torch.autograd.grad(loss, (user_BD, table_ID)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize(("smoothing", "weight"), [(0.1, 0.0), (0.0, 0.5), (0.0, 1.0), (0.2, 0.7)])
def test_is_exact(way: str, weighted: bool, scale: float, smoothing: float, weight: float) -> None:
    user_BD, table_ID, targets_B = factors(scale)
    weights_B = (torch.arange(USERS) % 3 / 2 if weighted else torch.ones(USERS)).double()
    targets_B[weights_B == 0] = 0
    mix, wanted_BI = made(smoothing, weight, targets_B)
    found = WAYS[way](
        user_BD, table_ID, targets_B, weights_B if weighted else None, mix, need_user=True, need_table=True
    )
    for one, other in zip(found, plain(user_BD, table_ID, wanted_BI, weights_B), strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11 * max(1.0, scale))


@pytest.mark.parametrize(("smoothing", "weight"), [(0.1, 0.0), (0.1, 0.6)])
def test_the_gradients_are_scaled_by_what_follows(smoothing: float, weight: float, device: torch.device) -> None:
    user_BD, table_ID, targets_B = factors(device=device)
    mix, wanted_BI = made(smoothing, weight, targets_B)
    leaves = user_BD.requires_grad_(), table_ID.requires_grad_()
    loss = softmax_loss(*leaves, targets_B, mix=mix)
    expected = F.cross_entropy(user_BD @ table_ID[1:].T, wanted_BI, reduction="sum")
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(3 * value, leaves) for value in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_label_smoothing_is_pytorchs() -> None:
    user_BD, table_ID, targets_B = factors()
    expected = F.cross_entropy(user_BD @ table_ID[1:].T, targets_B - 1, reduction="sum", label_smoothing=0.3)
    torch.testing.assert_close(softmax_loss(user_BD, table_ID, targets_B, mix=target_mix(0.3)), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_uniform_teacher_over_all_items_is_label_smoothing(way: str) -> None:
    user_BD, table_ID, targets_B = factors()
    items_BK = torch.arange(1, ITEMS + 1).expand(USERS, ITEMS)
    taught = target_mix(0.0, 0.3, items_BK, torch.full((USERS, ITEMS), 1 / ITEMS, dtype=torch.float64))
    mixes = (taught, target_mix(0.3))
    one, other = (WAYS[way](user_BD, table_ID, targets_B, None, mix, need_user=True, need_table=True) for mix in mixes)
    torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("way", WAYS)
def test_a_teacher_who_knows_the_target_changes_nothing(way: str) -> None:
    user_BD, table_ID, targets_B = factors()
    mix = target_mix(0.0, 0.4, targets_B[:, None], torch.ones(USERS, 1, dtype=torch.float64))
    one, other = (
        WAYS[way](user_BD, table_ID, targets_B, None, each, need_user=True, need_table=True) for each in (mix, None)
    )
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_without_both_there_is_no_mix() -> None:
    assert target_mix(0.0) is None


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_computed_that_is_not_needed(way: str) -> None:
    user_BD, table_ID, targets_B = factors()
    mix, wanted_BI = made(0.1, 0.6, targets_B)
    loss, *gradients = WAYS[way](user_BD, table_ID, targets_B, None, mix, need_user=False, need_table=False)
    assert gradients == [None, None]
    torch.testing.assert_close(loss, plain(user_BD, table_ID, wanted_BI, torch.ones(USERS))[0])


@pytest.mark.parametrize("way", WAYS)
def test_no_targets_give_no_loss_and_no_gradient(way: str) -> None:
    user_BD, table_ID, targets_B = factors()
    mix, _ = made(0.1, 0.6, targets_B)
    assert mix is not None
    assert mix.items_BK is not None
    assert mix.shares_BK is not None
    none = mix._replace(items_BK=mix.items_BK[:0], shares_BK=mix.shares_BK[:0])
    loss, _, grad_table_ID = WAYS[way](
        user_BD[:0], table_ID, targets_B[:0], None, none, need_user=True, need_table=True
    )
    assert float(loss) == 0
    assert grad_table_ID is not None
    assert not grad_table_ID.any()


def test_nothing_waits_for_a_value() -> None:
    """Tensors on `meta` have no values: an operation that needs one, or whose shape depends on one, fails."""
    user_BD, table_ID = torch.zeros(USERS, SIZE, device="meta"), torch.zeros(ITEMS + 1, SIZE, device="meta")
    targets_B = torch.ones(USERS, dtype=torch.int64, device="meta")
    items_BK = torch.ones(USERS, COUNT, dtype=torch.int64, device="meta")
    mix = target_mix(0.1, 0.5, items_BK, torch.ones(USERS, COUNT, device="meta"))
    for weights_B in (None, torch.ones(USERS, device="meta")):
        loss, *gradients = softmax_on_device(
            user_BD, table_ID, targets_B, weights_B, mix, need_user=True, need_table=True
        )
        assert loss.is_meta
        for gradient, factor in zip(gradients, (user_BD, table_ID), strict=True):
            assert gradient is not None
            assert gradient.shape == factor.shape


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_targets_are_pytorchs(data: st.DataObject) -> None:
    """Any numbers of users and items, some without a target, and any shares."""
    users, items = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 40))
    count = data.draw(st.integers(1, items))
    smoothing = data.draw(st.sampled_from([0.0, 0.01, 0.5, 0.99]))
    weight = data.draw(st.sampled_from([0.001, 0.5, 1.0]))
    draw = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    scale = data.draw(st.sampled_from([1e-3, 1.0, 40.0]))
    user_BD, table_ID = (
        scale * torch.randn(rows, 3, dtype=torch.float64, generator=draw) for rows in (users, items + 1)
    )
    targets_B = torch.randint(0, items + 1, (users,), generator=draw)
    weights_B = (targets_B > 0).double()
    items_BK = torch.rand(users, items, generator=draw).argsort(dim=1)[:, :count] + 1
    shares_BK = (scale * torch.randn(users, count, dtype=torch.float64, generator=draw)).softmax(dim=1)
    wanted_BI = F.one_hot((targets_B - 1).clamp(min=0), items).double() * (1 - weight)
    wanted_BI = (1 - smoothing) * wanted_BI.scatter_add(1, items_BK - 1, weight * shares_BK) + smoothing / items
    mix = target_mix(smoothing, weight, items_BK, shares_BK)
    wanted = plain(user_BD, table_ID, wanted_BI, weights_B)
    for way in WAYS.values():
        found = way(user_BD, table_ID, targets_B, weights_B, mix, need_user=True, need_table=True)
        for one, other in zip(found, wanted, strict=True):
            assert one is not None
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * max(1.0, scale))
