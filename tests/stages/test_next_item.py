"""The training loop of backbone and fusion: what micro-batches share."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tslrec.stages.next_item import narrowed


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
