"""BPR (Rendle et al. 2009): each target against one other item.

Shapes: T targets, I items (row 0 of a table is padding), E size of a user vector.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-10
"""Added to the probability, as in RecBole, so that its logarithm is finite."""


def other_items(targets_T: Tensor, num_items: int) -> Tensor:
    """Draws one item per target, uniformly from all others, by torch's default generator.

    Args:
        targets_T: item ids, from 1.
        num_items: I, at least 2.
    """
    # On the CPU, so that the draws are the same on every device.
    drawn_T = torch.randint(1, num_items, (len(targets_T),)).to(targets_T.device)
    return drawn_T + (drawn_T >= targets_T)


def pairwise_loss(user_TE: Tensor, output_IE: Tensor, targets_T: Tensor, others_T: Tensor) -> Tensor:
    """-log(1e-10 + sigmoid(target's score - other item's score)), summed over targets.

    Args:
        user_TE: user vectors.
        output_IE: the output table.
        targets_T: item ids.
        others_T: item ids, such as `other_items` draws.
    """
    difference_TE = output_IE[targets_T] - output_IE[others_T]
    margin_T = (user_TE.to(output_IE.dtype) * difference_TE).sum(dim=1)
    return -torch.log(SMALLEST + torch.sigmoid(margin_T)).sum()
