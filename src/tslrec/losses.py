"""The softmax over all items, in memory that does not grow with users × items.

Shapes: B users, I items (row 0 of the table is padding), D hidden size, C users of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = {"cpu": 4 * 2**20}
"""Exponentials held at a time: on a CPU what its caches hold, so that the passes over them cost little; elsewhere
`DEFAULT_CHUNK_BYTES`, since there each operation has a price of its own."""
DEFAULT_CHUNK_BYTES = 256 * 2**20
SAFE_LOGIT = 60.0
"""Logits below need no shift: e^±60, and a sum of a million of them, are ordinary fp32 numbers."""


class ChunkedSoftmaxLoss(torch.autograd.Function):
    """Linear layer and cross-entropy in one, a chunk of users at a time.

    The gradients of both factors are computed while a chunk's exponentials are at hand, so these are never kept, and
    the large product is done three times, as it must be, and not four. The exponentials are not even divided by their
    sum: the small factors of the products are.
    """

    @staticmethod
    def forward(ctx: Any, user_BD: Tensor, table_ID: Tensor, targets_B: Tensor, first_column: int) -> Tensor:
        need_user, need_table = ctx.needs_input_grad[:2]
        candidates_ID = table_ID[first_column:]
        places_B = targets_B - first_column
        target_BD = candidates_ID[places_B]
        rows = chunk_rows(len(candidates_ID), user_BD)
        largest_B = user_BD.new_zeros(len(user_BD))
        sums_B = torch.empty_like(largest_B)
        # By Cauchy and Schwarz no logit is larger. Only where that is not small enough is the maximum looked for.
        shift = not largest_norm(user_BD) * largest_norm(candidates_ID) <= SAFE_LOGIT
        grad_user_BD = torch.empty_like(user_BD) if need_user else None
        grad_table_ID = torch.zeros_like(table_ID) if need_table else None
        buffer_CI = user_BD.new_empty(min(rows, len(user_BD)), len(candidates_ID))
        for start in range(0, len(user_BD), rows):
            chunk = slice(start, start + rows)
            user_CD = user_BD[chunk]
            logits_CI = torch.mm(user_CD, candidates_ID.T, out=buffer_CI[: len(user_CD)])
            if shift:
                torch.amax(logits_CI, dim=1, out=largest_B[chunk])
                logits_CI.sub_(largest_B[chunk, None])
            exponential_CI = logits_CI.exp_()
            sums_C = torch.sum(exponential_CI, dim=1, out=sums_B[chunk])
            if grad_user_BD is not None:
                torch.mm(exponential_CI, candidates_ID, out=grad_user_BD[chunk])
            if grad_table_ID is not None:
                grad_table_ID[first_column:].addmm_(exponential_CI.T, user_CD / sums_C[:, None])
        if grad_user_BD is not None:
            grad_user_BD.div_(sums_B[:, None]).sub_(target_BD)
        if grad_table_ID is not None:
            grad_table_ID.index_add_(0, targets_B, user_BD, alpha=-1)
        ctx.save_for_backward(grad_user_BD, grad_table_ID)
        target_logit_B = (user_BD * target_BD).sum(dim=1)
        return (sums_B.log() + largest_B - target_logit_B).double().sum().to(user_BD.dtype)

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


def largest_norm(vectors_XD: Tensor) -> float:
    """Of any of the vectors; 0 of none, as a process without a target in this step has."""
    return float(torch.linalg.vector_norm(vectors_XD, dim=1).max()) if len(vectors_XD) else 0.0


def chunk_rows(num_candidates: int, user_BD: Tensor) -> int:
    """How many users a chunk has: at least D, or the products would read more of the item table than they compute."""
    held = CHUNK_BYTES.get(user_BD.device.type, DEFAULT_CHUNK_BYTES)
    return max(user_BD.shape[1], held // (num_candidates * user_BD.element_size()))


def softmax_loss(user_BD: Tensor, table_ID: Tensor, targets_B: Tensor, *, padding_row: bool = False) -> Tensor:
    """Cross-entropy over all items, summed over users; scores are dot products with the tied table, without bias.

    Under mixed precision it is computed in the table's own.

    Args:
        user_BD: user vectors.
        table_ID: the item table, row 0 being padding.
        targets_B: item ids, 1 or more.
        padding_row: whether column 0 is a candidate, as in RecBole.
    """
    with torch.autocast(user_BD.device.type, enabled=False):
        first_column = 0 if padding_row else 1
        loss: Tensor = ChunkedSoftmaxLoss.apply(user_BD.to(table_ID.dtype), table_ID, targets_B, first_column)
    return loss
