"""Knowledge is scaled over the items, without padding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tslrec.errors import UserError
from tslrec.fusions.scaling import standardise, whiten

NUM_ITEMS, SIZE = 40, 7


@pytest.fixture
def knowledge_IH() -> Tensor:  # noqa: N802
    """Correlated dimensions of unlike size."""
    draw = torch.Generator().manual_seed(0)
    mixed = torch.randn(NUM_ITEMS + 1, SIZE, generator=draw) @ torch.randn(SIZE, SIZE, generator=draw)
    return 3 + mixed * torch.logspace(-2, 2, SIZE)


def test_each_dimension_is_standardised(knowledge_IH: Tensor) -> None:
    standardised = standardise(knowledge_IH)
    torch.testing.assert_close(standardised[1:].mean(dim=0), torch.zeros(SIZE), atol=1e-6, rtol=0)
    torch.testing.assert_close(standardised[1:].std(dim=0, unbiased=False), torch.ones(SIZE))
    assert (standardised[0] == 0).all()


def test_a_constant_dimension_becomes_zero(knowledge_IH: Tensor) -> None:
    knowledge_IH[:, 3] = 7
    assert (standardise(knowledge_IH)[:, 3] == 0).all()


def test_whitened_components_are_uncorrelated_and_the_leading_ones(knowledge_IH: Tensor) -> None:
    whitened = whiten(knowledge_IH, SIZE)
    assert whitened.dtype == torch.float32
    assert (whitened[0] == 0).all()
    torch.testing.assert_close(whitened[1:].mean(dim=0), torch.zeros(SIZE), atol=1e-5, rtol=0)
    covariance = whitened[1:].T @ whitened[1:] / NUM_ITEMS
    torch.testing.assert_close(covariance, torch.eye(SIZE), atol=1e-4, rtol=0)

    # The first explains most: no other direction of the items varies as much.
    assert torch.equal(whiten(knowledge_IH, 2), whitened[:, :2])
    centred = (knowledge_IH[1:] - knowledge_IH[1:].mean(dim=0)).double()
    explained = (whitened[1:, 0].double() @ centred / NUM_ITEMS).square().sum()
    torch.testing.assert_close(
        explained, torch.linalg.matrix_norm(centred, ord=2).square() / NUM_ITEMS, rtol=1e-5, atol=0
    )


def test_components_that_do_not_vary_become_zero(knowledge_IH: Tensor) -> None:
    knowledge_IH[:, 5] = knowledge_IH[:, 6]
    whitened = whiten(knowledge_IH, SIZE)
    assert (whitened[:, -1] == 0).all()
    assert (whitened[1:, :-1].std(dim=0) > 0.9).all()


def test_no_more_components_than_there_are(knowledge_IH: Tensor) -> None:
    with pytest.raises(UserError, match=r"fusion\.whitened_size=8: the knowledge has 7 components"):
        whiten(knowledge_IH, SIZE + 1)


@pytest.mark.parametrize("scale", [standardise, lambda table: whiten(table, 2)], ids=["standardise", "whiten"])
def test_knowledge_that_is_not_finite_is_refused(scale: Callable[[Tensor], Tensor], knowledge_IH: Tensor) -> None:
    knowledge_IH[4, 2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        scale(knowledge_IH)
