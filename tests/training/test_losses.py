"""The chunked softmax is the plain one, in value and in gradients, however large its logits are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tslrec.training.losses import softmax_loss

CPU = torch.device("cpu")


def users_and_table(scale: float, device: torch.device = CPU) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    user = (scale * torch.randn(7, 3, dtype=torch.float64)).to(device)
    table = (scale * torch.randn(11, 3, dtype=torch.float64)).to(device)
    return user.requires_grad_(), table.requires_grad_(), torch.randint(1, 11, (7,)).to(device)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_is_exact(monkeypatch: pytest.MonkeyPatch, scale: float, device: torch.device) -> None:
    # Three chunks of three, three and one; the larger logits would overflow without a shift.
    monkeypatch.setattr("tslrec.training.losses.CHUNK_BYTES", 8 * 11 * 3)
    user, table, targets = users_and_table(scale, device)
    assert bool((user @ table.T).max() > 700) == (scale == 30.0)
    loss = softmax_loss(user, table, targets)
    expected = F.cross_entropy(user @ table[1:].T, targets - 1, reduction="sum")
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(3 * value, (user, table)) for value in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_logits_that_are_not_finite_give_a_loss_that_is_not_finite(device: torch.device) -> None:
    user, table, targets = users_and_table(1.0, device)
    broken = user.detach().clone()
    broken[2, 1] = torch.nan
    assert not torch.isfinite(softmax_loss(broken, table, targets))


def test_mixed_precision_computes_it_in_the_precision_of_the_table(device: torch.device) -> None:
    user, table, targets = users_and_table(1.0, device)
    expected = softmax_loss(user.float(), table.float(), targets)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(softmax_loss(user.float(), table.float(), targets), expected)


def test_nothing_of_users_times_items_is_kept_for_the_backward_pass(device: torch.device) -> None:
    user, table, targets = users_and_table(1.0, device)
    loss = softmax_loss(user, table, targets)
    assert loss.grad_fn is not None
    saved = loss.grad_fn.saved_tensors  # type: ignore[attr-defined]
    assert {tuple(each.shape) for each in saved} == {(7, 3), (11, 3)}


def test_no_targets_give_no_loss_and_no_gradient(device: torch.device) -> None:
    user, table, targets = users_and_table(1.0, device)
    loss = softmax_loss(user[:0], table, targets[:0])
    assert float(loss.detach()) == 0
    assert not torch.autograd.grad(loss, table)[0].any()


def test_a_weight_counts_as_often_as_it_says() -> None:
    user, table, targets = users_and_table(1.0)
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    # What does not count has no target.
    targets[weights == 0] = 0
    loss = softmax_loss(user, table, targets, weights)
    each = F.cross_entropy(user @ table[1:].T, (targets - 1).clamp(min=0), reduction="none")
    expected = (each * weights).sum()
    torch.testing.assert_close(loss, expected)
    found, wanted = (torch.autograd.grad(3 * value, (user, table)) for value in (loss, expected))
    torch.testing.assert_close(found, wanted)


def test_weights_of_one_change_no_bit() -> None:
    user, table, targets = (each.detach() for each in users_and_table(1.0))
    ways = []
    for weights in (None, torch.ones(7)):
        factors = user.float().requires_grad_(), table.float().requires_grad_()
        loss = softmax_loss(*factors, targets, weights)
        ways.append((loss.detach(), *torch.autograd.grad(loss, factors)))
    assert all(map(torch.equal, *ways))
