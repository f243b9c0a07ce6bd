"""Caser with its authors' output: a table of its own, user vectors and a bias per item."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tslrec.models.backbones.caser import Caser
from tslrec.models.item_embedding import IdEmbedding

NUM_ITEMS, SIZE, USERS = 20, 4, torch.tensor([2, 0])
ITEMS, LENGTHS = torch.tensor([[3, 1, 4], [9, 2, 0]]), torch.tensor([3, 2])


def test_items_are_scored_by_the_convolutions_the_user_and_a_bias() -> None:
    torch.manual_seed(0)
    caser = Caser(IdEmbedding(NUM_ITEMS, SIZE), 5, 3, use_user_embedding=True, own_output=True).eval()
    convolved: list[torch.Tensor] = []
    hook = caser.first.register_forward_hook(lambda module, given, output: convolved.append(output))
    user_BE = caser(ITEMS, LENGTHS, USERS)
    hook.remove()
    assert caser.user_embedding is not None
    assert caser.own_output_IE is not None
    with torch.no_grad():
        caser.own_output_IE[:, -1] = torch.linspace(-1, 1, NUM_ITEMS + 1)
    of_convolved, of_user, bias = caser.own_output_IE.split([SIZE, SIZE, 1], dim=1)
    expected = F.relu(convolved[0]) @ of_convolved.T + caser.user_embedding[USERS] @ of_user.T + bias[:, 0]
    torch.testing.assert_close(user_BE @ caser.output_table(caser.item_embedding.table()).T, expected)


def test_the_table_of_its_own_takes_part_in_the_penalty() -> None:
    caser = Caser(IdEmbedding(NUM_ITEMS, SIZE), 5, 3, own_output=True, reg_weight=1.0)
    before = caser.regularization()
    assert caser.own_output_IE is not None
    norm = torch.linalg.vector_norm(caser.own_output_IE)
    with torch.no_grad():
        caser.own_output_IE.mul_(3)
    torch.testing.assert_close(caser.regularization() - before, 2 * norm)


def test_recent_first_is_a_window_padded_in_front_with_the_filters_turned() -> None:
    torch.manual_seed(0)
    length, filters = 5, 3
    caser = Caser(
        IdEmbedding(NUM_ITEMS, SIZE), 5, length, num_vertical=2, num_horizontal=filters, recent_first=True
    ).eval()
    convolved: list[torch.Tensor] = []
    hook = caser.first.register_forward_pre_hook(lambda module, given: convolved.append(given[0]))
    items, lengths = torch.tensor([[3, 1, 4, 7, 2], [9, 2, 0, 0, 0], [6, 0, 0, 0, 0]]), torch.tensor([5, 2, 1])
    caser(items, lengths, torch.tensor([0, 1, 2]))
    hook.remove()
    in_front = torch.stack([items[row].roll(length - int(lengths[row])) for row in range(3)])
    image_BLD = caser.item_embedding.table()[in_front] * (in_front > 0)[..., None]
    assert caser.vertical.bias is not None
    vertical = torch.einsum("vl,bld->bvd", caser.vertical.weight[..., 0].flip(1), image_BLD)
    expected = [(vertical + caser.vertical.bias[:, None]).flatten(1)]
    for layer in caser.horizontal.children():
        assert isinstance(layer, nn.Conv1d)
        response = F.conv1d(image_BLD.mT, layer.weight.flip(2), layer.bias)
        expected.append(F.relu(response).amax(dim=2))
    torch.testing.assert_close(convolved[0], torch.cat(expected, dim=1))
