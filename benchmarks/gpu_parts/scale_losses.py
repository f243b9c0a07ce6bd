"""Ways to compute the softmax's loss over all items and its gradients: ours, PyTorch's, Liger's, cut-cross-entropy.

Shapes: T targets of a step, I items (row 0 of the table is padding), D size of a user vector.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gpu_parts.bench import Bench
from gpu_parts.scale_market import targets_of

if TYPE_CHECKING:
    from torch import Tensor

Loss = tuple["Tensor", "Tensor", "Tensor"]
"""The summed loss, and the gradients of both factors."""


def factors(bench: Bench, num_items: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """User vectors and an item table, with gradient, whose logits have a standard deviation of 2, and targets."""
    import torch

    torch.manual_seed(0)
    user_TD = torch.randn(targets_of(bench), width, device=bench.device)
    table_ID = torch.randn(num_items + 1, width, device=bench.device).mul_(2 / math.sqrt(width))
    targets_T = torch.randint(1, num_items + 1, (targets_of(bench),), device=bench.device)
    return user_TD.requires_grad_(), table_ID.requires_grad_(), targets_T


def differentiated(loss: Tensor, user_TD: Tensor, table_ID: Tensor) -> Loss:
    import torch

    grad_user_TD, grad_table_ID = torch.autograd.grad(loss, (user_TD, table_ID))
    return loss.detach(), grad_user_TD, grad_table_ID


def ours(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor) -> Loss:
    from tslrec.training.losses import softmax_loss

    return differentiated(softmax_loss(user_TD, table_ID, targets_T), user_TD, table_ID)


def ours_without_kernel(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor) -> Loss:
    import torch

    from tslrec.training.softmax_on_device import exponentiate_plainly, softmax_on_device

    with torch.no_grad():
        loss, grad_user_TD, grad_table_ID = softmax_on_device(
            user_TD, table_ID, targets_T, None, need_user=True, need_table=True, exponentiate=exponentiate_plainly
        )
    assert grad_user_TD is not None
    assert grad_table_ID is not None
    return loss, grad_user_TD, grad_table_ID


def pytorch(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor) -> Loss:
    """Holds all logits, and three times so many numbers at its peak."""
    import torch.nn.functional as F

    loss = F.cross_entropy(user_TD @ table_ID[1:].T, targets_T - 1, reduction="sum")
    return differentiated(loss, user_TD, table_ID)


def liger(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor) -> Loss:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")(table_ID[1:], user_TD, targets_T - 1)
    return differentiated(loss, user_TD, table_ID)


def cut_cross_entropy(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor) -> Loss:
    from cut_cross_entropy import linear_cross_entropy

    loss = linear_cross_entropy(user_TD, table_ID[1:], targets_T - 1, reduction="sum", filter_eps=None)
    return differentiated(loss, user_TD, table_ID)
