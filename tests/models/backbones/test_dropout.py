"""Dropout drops as often as it is told to, keeps the mean, and draws from torch's generator."""

from __future__ import annotations

import pytest
import torch

from tslrec.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.7])
def test_drops_at_its_rate_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(1000, 1003))
    share = float((dropped == 0).double().mean())
    # Five standard deviations of a million independent draws.
    assert abs(share - p) < 5 * (p * (1 - p) / dropped.numel()) ** 0.5
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 1 / (1 - p)]), rtol=1e-4, atol=0)
    assert abs(float(dropped.double().mean()) - 1) < 0.01


def test_neighbouring_numbers_are_dropped_independently() -> None:
    torch.manual_seed(0)
    dropped = (Dropout(0.5)(torch.ones(400_000)) == 0).double().view(-1, 8)
    correlation = torch.corrcoef(dropped.T)
    assert float((correlation - torch.eye(8)).abs().max()) < 0.03


def test_the_gradient_passes_where_the_value_did() -> None:
    torch.manual_seed(0)
    x = torch.ones(57, requires_grad=True)
    dropped = Dropout(0.5)(x)
    (gradient,) = torch.autograd.grad(dropped.sum(), x)
    assert torch.equal(gradient, dropped.detach())


def test_the_generator_decides() -> None:
    drop = Dropout(0.5)
    torch.manual_seed(1)
    first, second = drop(torch.ones(57)), drop(torch.ones(57))
    torch.manual_seed(1)
    assert torch.equal(drop(torch.ones(57)), first)
    assert not torch.equal(first, second)


def test_does_nothing_in_evaluation_or_at_rate_zero() -> None:
    x = torch.randn(5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_an_impossible_rate_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="probability"):
        Dropout(p)
