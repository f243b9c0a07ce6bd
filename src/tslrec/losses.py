"""The softmax over all items, in memory that does not grow with users × items.

Shapes: B users, I items (row 0 of the table is padding), D hidden size, C users of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 32 * 2**20
"""Logits held at a time."""


class ChunkedSoftmaxLoss(torch.autograd.Function):
    """Linear layer and cross-entropy in one, a chunk of users at a time.

    The gradients of both factors are computed while a chunk's logits are at hand, so these are never kept and the
    large product is done three times, as it must be, and not four.
    """

    @staticmethod
    def forward(ctx: Any, user_BD: Tensor, table_ID: Tensor, targets_B: Tensor, first_column: int) -> Tensor:
        need_user, need_table = ctx.needs_input_grad[:2]
        candidates_ID = table_ID[first_column:]
        rows = max(1, CHUNK_BYTES // (len(candidates_ID) * user_BD.element_size()))
        total = user_BD.new_zeros((), dtype=torch.float64)
        grad_user_BD = torch.empty_like(user_BD) if need_user else None
        grad_table_ID = torch.zeros_like(table_ID) if need_table else None
        for start in range(0, len(user_BD), rows):
            user_CD = user_BD[start : start + rows]
            target_C1 = targets_B[start : start + rows, None] - first_column
            logits_CI = user_CD @ candidates_ID.T
            target_logit_C1 = logits_CI.gather(1, target_C1)
            largest_C1 = logits_CI.amax(dim=1, keepdim=True)
            exponential_CI = logits_CI.sub_(largest_C1).exp_()
            sum_C1 = exponential_CI.sum(dim=1, keepdim=True)
            total += (sum_C1.log() + largest_C1 - target_logit_C1).double().sum()
            if not (need_user or need_table):
                continue
            grad_CI = exponential_CI.div_(sum_C1)
            grad_CI.scatter_add_(1, target_C1, torch.full_like(target_C1, -1, dtype=grad_CI.dtype))
            if grad_user_BD is not None:
                torch.mm(grad_CI, candidates_ID, out=grad_user_BD[start : start + rows])
            if grad_table_ID is not None:
                grad_table_ID[first_column:].addmm_(grad_CI.T, user_CD)
        ctx.save_for_backward(grad_user_BD, grad_table_ID)
        return total.to(user_BD.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        grad_user_BD, grad_table_ID = ctx.saved_tensors
        (scale,) = grads
        return (
            None if grad_user_BD is None else grad_user_BD * scale,
            None if grad_table_ID is None else grad_table_ID * scale,
            None,
            None,
        )


def softmax_loss(user_BD: Tensor, table_ID: Tensor, targets_B: Tensor, *, padding_row: bool = False) -> Tensor:
    """Cross-entropy over all items, summed over users; scores are dot products with the tied table, without bias.

    Args:
        user_BD: user vectors.
        table_ID: the item table, row 0 being padding.
        targets_B: item ids, 1 or more.
        padding_row: whether column 0 is a candidate, as in RecBole.
    """
    loss: Tensor = ChunkedSoftmaxLoss.apply(user_BD, table_ID, targets_B, 0 if padding_row else 1)
    return loss
