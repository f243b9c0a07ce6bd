"""The fusion of codes beside an id embedding."""

from __future__ import annotations

import pytest
import torch

from tslrec.models.fusions.category import CategoryFusion
from tslrec.models.fusions.codes import CodesFusion

CODES_IC = torch.tensor([[-1, -1, -1], [0, 2, 0], [1, 0, 0], [0, 2, 0], [1, 1, 0]])


def test_an_item_is_its_id_and_the_sum_of_its_codes() -> None:
    fusion = CodesFusion(4, 6, codes_IC=CODES_IC)
    # Two codes of the first level, three of the second and one of the third, behind padding.
    assert fusion.code_weight.shape == (1 + 2 + 3 + 1, 6)
    first, second, third = fusion.code_weight[1:].split([2, 3, 1])
    for item in range(1, 5):
        one, two, three = CODES_IC[item].tolist()
        expected = fusion.id_embedding.weight[item] + first[one] + second[two] + third[three]
        torch.testing.assert_close(fusion.table()[item], expected)


def test_padding_stays_zero_and_gets_no_gradient() -> None:
    fusion = CodesFusion(4, 6, codes_IC=CODES_IC)
    fusion.table().square().sum().backward()
    assert fusion.code_weight.grad is not None
    assert not fusion.table()[0].any()
    assert not fusion.code_weight.grad[0].any()
    assert fusion.code_weight.grad[1:].any(dim=1).all()


def test_codes_of_one_level_are_categories() -> None:
    torch.manual_seed(4)
    codes = CodesFusion(4, 6, codes_IC=CODES_IC[:, 1:2])
    torch.manual_seed(4)
    categories = CategoryFusion(4, 6, clusters_I=CODES_IC[:, 1])
    torch.testing.assert_close(codes.table(), categories.table())


@pytest.mark.parametrize("codes_IC", [CODES_IC[:-1], CODES_IC[:, 0], torch.full((5, 2), -1)])
def test_codes_of_other_items_or_of_none_are_refused(codes_IC: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="needs codes of each of 4 items and padding"):
        CodesFusion(4, 6, codes_IC=codes_IC)
