"""Cross-entropy over all items, in memory that does not grow with users × items.

Shapes: B users, I items (row 0 of the table is padding), D size of a user vector, C users of a chunk, X vectors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tslrec.training.softmax_on_device import softmax_on_device
from tslrec.training.target_mix import TargetMix

CHUNK_BYTES = 4 * 2**20
"""Bytes of logits held at a time on a CPU: as many as its caches hold, so that passes over them are cheap. What holds
on other devices is in `softmax_on_device`."""
SAFE_LOGIT = 60.0
"""Logits whose absolute value is at most this need no shift by their maximum: e^±60, and a sum of a million of them,
are ordinary fp32 numbers."""


class ChunkedSoftmaxLoss(torch.autograd.Function):
    """Scores of all items and their cross-entropy in one, one chunk of users at a time.

    The forward pass also computes the gradients of both factors, while a chunk's exponentials are in memory. So the
    exponentials are never stored, and the large product is computed three times, the minimum, instead of four. The
    exponentials are not divided by their sum either: the small factors of the products are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        user_BD: Tensor,
        table_ID: Tensor,
        targets_B: Tensor,
        weights_B: Tensor | None,
        mix: TargetMix | None,
    ) -> Tensor:
        need_user, need_table = ctx.needs_input_grad[:2]
        compute = softmax_on_cpu if user_BD.device.type == "cpu" else softmax_on_device
        loss, grad_user_BD, grad_table_ID = compute(
            user_BD, table_ID, targets_B, weights_B, mix, need_user=need_user, need_table=need_table
        )
        ctx.save_for_backward(grad_user_BD, grad_table_ID)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        grad_user_BD, grad_table_ID = ctx.saved_tensors
        (scale,) = grads
        return (
            None if grad_user_BD is None else grad_user_BD * scale,
            None if grad_table_ID is None else grad_table_ID * scale,
            None,
            None,
            None,
        )


def softmax_on_cpu(
    user_BD: Tensor,
    table_ID: Tensor,
    targets_B: Tensor,
    weights_B: Tensor | None,
    mix: TargetMix | None = None,
    *,
    need_user: bool,
    need_table: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss and its gradients as a CPU computes them, with as few passes over the logits as it takes.

    Args:
        user_BD: user vectors.
        table_ID: the item table; row 0 is padding.
        targets_B: item ids, from 1; 0 where the weight is 0.
        weights_B: see `softmax_loss`.
        mix: see `softmax_loss`.
        need_user: whether to compute the gradient of the user vectors.
        need_table: whether to compute that of the table.

    Returns:
        The summed loss, a scalar, and both gradients, or None for those that are not needed.
    """
    candidates_ID = table_ID[1:]
    places_B = targets_B - 1
    target_BD = candidates_ID[places_B]
    if mix is not None:
        target_BD = mix.kept * target_BD + mix.uniform * candidates_ID.mean(dim=0)
    rows = chunk_rows(len(candidates_ID), user_BD)
    largest_B = user_BD.new_zeros(len(user_BD))
    sums_B = torch.empty_like(largest_B)
    shared_B = torch.zeros_like(largest_B)
    # By the Cauchy-Schwarz inequality no logit is larger than the product of the norms. The logits are shifted by
    # their maximum only where that bound is too large.
    shift = not largest_norm(user_BD) * largest_norm(candidates_ID) <= SAFE_LOGIT
    weighted_BD = user_BD if weights_B is None else user_BD * weights_B[:, None]
    grad_user_BD = torch.empty_like(user_BD) if need_user else None
    grad_table_ID = torch.zeros_like(table_ID) if need_table else None
    buffer_CI = user_BD.new_empty(min(rows, len(user_BD)), len(candidates_ID))
    for start in range(0, len(user_BD), rows):
        chunk = slice(start, start + rows)
        user_CD = user_BD[chunk]
        logits_CI = torch.mm(user_CD, candidates_ID.T, out=buffer_CI[: len(user_CD)])
        bag = None if mix is None else mix.bag(chunk)
        if bag is not None:
            shared_B[chunk] = bag.mean_logits(logits_CI)
        if shift:
            torch.amax(logits_CI, dim=1, out=largest_B[chunk])
            logits_CI.sub_(largest_B[chunk, None])
        exponential_CI = logits_CI.exp_()
        sums_C = torch.sum(exponential_CI, dim=1, out=sums_B[chunk])
        if bag is not None:
            # Both products then have the shares in them, at the price of K numbers of a row instead of K vectors.
            bag.subtract_from(exponential_CI, sums_C)
        if grad_user_BD is not None:
            torch.mm(exponential_CI, candidates_ID, out=grad_user_BD[chunk])
        if grad_table_ID is not None:
            grad_table_ID[1:].addmm_(exponential_CI.T, weighted_BD[chunk] / sums_C[:, None])
    if grad_user_BD is not None:
        grad_user_BD.div_(sums_B[:, None]).sub_(target_BD)
        if weights_B is not None:
            grad_user_BD.mul_(weights_B[:, None])
    if grad_table_ID is not None:
        grad_table_ID.index_add_(0, targets_B, weighted_BD, alpha=-1 if mix is None else -mix.kept)
        if mix is not None and mix.uniform > 0:
            grad_table_ID[1:].sub_(weighted_BD.sum(dim=0) * (mix.uniform / len(candidates_ID)))
    losses_B = sums_B.log() + largest_B - (user_BD * target_BD).sum(dim=1)
    if mix is not None:
        losses_B -= shared_B
    if weights_B is not None:
        losses_B = losses_B * weights_B
    return losses_B.double().sum().to(user_BD.dtype), grad_user_BD, grad_table_ID


def largest_norm(vectors_XD: Tensor) -> float:
    """The largest Euclidean norm of some vectors; 0 if there are none, as on a rank without a target in this step."""
    return float(torch.linalg.vector_norm(vectors_XD, dim=1).max()) if len(vectors_XD) else 0.0


def chunk_rows(num_candidates: int, user_BD: Tensor) -> int:
    """Users of a chunk: at least D, so that the products compute more than they read of the item table."""
    return max(user_BD.shape[1], CHUNK_BYTES // (num_candidates * user_BD.element_size()))


def softmax_loss(
    user_BD: Tensor,
    table_ID: Tensor,
    targets_B: Tensor,
    weights_B: Tensor | None = None,
    mix: TargetMix | None = None,
) -> Tensor:
    """Cross-entropy over all items, summed over users; scores are dot products with the item table, without bias.

    Under mixed precision it is computed in the table's precision.

    Args:
        user_BD: user vectors; all finite, those of weight 0 too.
        table_ID: the item table; row 0 is padding.
        targets_B: item ids, from 1; 0 is allowed where the weight is 0.
        weights_B: what each user's cross-entropy counts for, without gradient: 0 for a target that fills a step up to
            a fixed size. None: 1 for all.
        mix: the distributions that stand in the place of the targets; None: each target is its item alone.

    Returns:
        The sum, a scalar.
    """
    with torch.autocast(user_BD.device.type, enabled=False):
        weights_B = None if weights_B is None else weights_B.to(table_ID.dtype)
        mix = None if mix is None else mix.to(table_ID.dtype)
        loss: Tensor = ChunkedSoftmaxLoss.apply(user_BD.to(table_ID.dtype), table_ID, targets_B, weights_B, mix)
    return loss
