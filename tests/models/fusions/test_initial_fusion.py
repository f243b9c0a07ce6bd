"""The fusion that starts from knowledge."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tslrec.models.fusions.initial import InitialFusion

NUM_ITEMS, SIZE = 40, 7


@pytest.fixture
def knowledge_IH() -> Tensor:  # noqa: N802
    """Dimensions of unlike size with means; a padding row that must not count."""
    draw = torch.Generator().manual_seed(0)
    knowledge = 3 + torch.randn(NUM_ITEMS + 1, SIZE, generator=draw) * torch.logspace(-2, 2, SIZE)
    knowledge[0] = 1e6
    return knowledge


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_start_is_the_knowledge_at_the_scale_of_an_id_embedding(knowledge_IH: Tensor, scale: float) -> None:
    table = InitialFusion(NUM_ITEMS, SIZE, knowledge_IH=knowledge_IH, scale=scale).table().detach()
    assert (table[0] == 0).all()
    assert float(table[1:].std(unbiased=False)) == pytest.approx(0.02 * scale, rel=1e-5)
    centred = knowledge_IH[1:] - knowledge_IH[1:].mean(dim=0)
    torch.testing.assert_close(table[1:], centred * (0.02 * scale / centred.std(unbiased=False)), atol=1e-7, rtol=1e-4)


def test_a_start_that_is_constant_is_zero() -> None:
    fusion = InitialFusion(NUM_ITEMS, SIZE, knowledge_IH=torch.ones(NUM_ITEMS + 1, SIZE))
    assert (fusion.table() == 0).all()


def test_a_start_of_another_width_is_refused(knowledge_IH: Tensor) -> None:
    with pytest.raises(ValueError, match=f"{SIZE + 1} numbers each"):
        InitialFusion(NUM_ITEMS, SIZE + 1, knowledge_IH=knowledge_IH)


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e9, float("nan")])
def test_a_scale_out_of_bounds_is_refused(knowledge_IH: Tensor, scale: float) -> None:
    with pytest.raises(ValueError, match="scale must be above 0"):
        InitialFusion(NUM_ITEMS, SIZE, knowledge_IH=knowledge_IH, scale=scale)
