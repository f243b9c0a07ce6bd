"""Knowledge is scaled over the items, without padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tslrec.models.fusions.knowledge_scaling import standardise

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


def test_knowledge_that_is_not_finite_is_refused(knowledge_IH: Tensor) -> None:
    knowledge_IH[4, 2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        standardise(knowledge_IH)
