"""Caser with its authors' output: a table of its own, user vectors and a bias per item."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tslrec.backbones.caser import Caser
from tslrec.item_embedding import IdEmbedding

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
