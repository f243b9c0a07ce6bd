"""Cross-entropy over a sample of the items, for catalogues that are too large to score in every step.

Shapes: T targets of an optimizer step, C targets of a chunk, S negatives, R rows of the item table that the step uses,
D size of a user vector, I items (row 0 of the whole table is padding).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK_BYTES = {"cpu": 8 * 2**20}
"""Bytes of logits held at a time on a CPU."""
DEFAULT_CHUNK_BYTES = 256 * 2**20
"""Bytes of logits held at a time on any other device, where each kernel launch has a cost of its own."""


class Negatives(NamedTuple):
    """The sampled negatives of a step, shared by all of its targets.

    Attributes:
        items_S: item ids, int64, not decreasing; drawn with replacement, so an item may occur more than once.
        log_expected_S: float32, log(S q) of each item, where q is the probability of drawing it: the logarithm of its
            expected number of occurrences among the S.
    """

    items_S: Tensor
    log_expected_S: Tensor


class NegativeSampler:
    """Draws items with probability proportional to (1 + count)^exponent, by torch's default generator.

    Args:
        counts_I: how often each item occurs in the training part, `[I + 1]`.
        num_negatives: S.
        exponent: 0 draws uniformly, 1 by popularity. The 1 that is added to a count gives every item a probability
            above 0, which an unbiased estimate needs.
    """

    def __init__(self, counts_I: NDArray[np.int64], *, num_negatives: int, exponent: float) -> None:
        weights_I = (1.0 + counts_I) ** exponent
        weights_I[0] = 0
        self.num_negatives = num_negatives
        # On the CPU, so that the draws are the same on every device; it costs half a millisecond per step.
        self.probability_I = torch.from_numpy(weights_I / weights_I.sum())
        self.cumulative_I = self.probability_I.cumsum(0)

    def draw(self, device: torch.device) -> Negatives:
        """Draws the negatives of a step and moves them to a device."""
        uniform_S = torch.rand(self.num_negatives, dtype=torch.float64) * self.cumulative_I[-1]
        # Sorted, so that the search goes through memory once, and because `accidental_hits` needs it.
        items_S = torch.searchsorted(self.cumulative_I, uniform_S.sort().values, right=True)
        items_S.clamp_(max=len(self.cumulative_I) - 1)
        log_expected_S = (self.num_negatives * self.probability_I[items_S]).log().float()
        return Negatives(sent(items_S, device), sent(log_expected_S, device))


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; the host does not wait until a GPU has received it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def sampled_softmax_loss(user_TD: Tensor, table_RD: Tensor, targets_T: Tensor, negatives: Negatives) -> Tensor:
    """Cross-entropy of each target against sampled negatives, summed over targets.

    The loss of a target t is log(Z) - s_t with Z = exp(s_t) + sum over drawn j other than t of exp(s_j) / (S q_j). Z is
    an unbiased estimate of the partition function over all items, since item j is expected S q_j times among the S
    (Bengio and Senecal 2008; Yi et al. 2019 share the negatives between targets). The target is always in the sum, so
    its term is not corrected; a negative that equals the target is left out of that target's sum.

    Args:
        user_TD: user vectors.
        table_RD: item vectors that this step uses.
        targets_T: rows of `table_RD`.
        negatives: of the step; here `items_S` are rows of `table_RD`.

    Returns:
        The sum, a scalar in at least float32.
    """
    # In half precision the rounded correction would be a bias.
    dtype = torch.promote_types(torch.promote_types(user_TD.dtype, table_RD.dtype), torch.float32)
    loss: Tensor = ChunkedSampledSoftmax.apply(
        user_TD.to(dtype), table_RD.to(dtype), targets_T, negatives.items_S, negatives.log_expected_S.to(dtype)
    )
    return loss


class ChunkedSampledSoftmax(torch.autograd.Function):
    """`sampled_softmax_loss`, one chunk of targets at a time; the forward pass also computes the gradient."""

    @staticmethod
    def forward(
        ctx: Any, user_TD: Tensor, table_RD: Tensor, targets_T: Tensor, negatives_S: Tensor, log_expected_S: Tensor
    ) -> Tensor:
        negatives_SD = table_RD[negatives_S]
        need_gradient = any(ctx.needs_input_grad)
        grad_user_TD = torch.empty_like(user_TD) if need_gradient else None
        grad_target_TD = torch.empty_like(user_TD) if need_gradient else None
        grad_negatives_SD = torch.zeros_like(negatives_SD) if need_gradient else None
        total = user_TD.new_zeros((), dtype=torch.float64)
        held = CHUNK_BYTES.get(user_TD.device.type, DEFAULT_CHUNK_BYTES)
        size = max(1, held // (len(negatives_S) * user_TD.element_size()))
        with torch.autocast(user_TD.device.type, enabled=False):
            for start in range(0, len(user_TD), size):
                chunk = slice(start, start + size)
                user_CD, target_CD = user_TD[chunk], table_RD[targets_T[chunk]]
                logits_CS = torch.addmm(-log_expected_S, user_CD, negatives_SD.T)
                if logits_CS.device.type == "cpu":
                    logits_CS[accidental_hits(targets_T[chunk], negatives_S)] = -torch.inf
                else:
                    logits_CS.masked_fill_(all_hits(targets_T[chunk], negatives_S), -torch.inf)
                target_C1 = (user_CD * target_CD).sum(dim=1, keepdim=True)
                largest_C1 = torch.maximum(logits_CS.amax(dim=1, keepdim=True), target_C1)
                share_CS = logits_CS.sub_(largest_C1).exp_()
                share_C1 = (target_C1 - largest_C1).exp()
                sum_C1 = share_CS.sum(dim=1, keepdim=True) + share_C1
                total += (sum_C1.log() + largest_C1 - target_C1).double().sum()
                if grad_user_TD is None or grad_target_TD is None or grad_negatives_SD is None:
                    continue
                share_CS.div_(sum_C1)
                missing_C1 = share_C1 / sum_C1 - 1
                torch.addmm(missing_C1 * target_CD, share_CS, negatives_SD, out=grad_user_TD[chunk])
                torch.mul(missing_C1, user_CD, out=grad_target_TD[chunk])
                grad_negatives_SD.addmm_(share_CS.T, user_CD)
        if grad_target_TD is not None and grad_negatives_SD is not None:
            rows = (targets_T, negatives_S), (grad_target_TD, grad_negatives_SD)
            ctx.save_for_backward(grad_user_TD, sum_by_row(*rows, table_RD))
        return total.to(user_TD.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_user_TD, grad_table_RD = ctx.saved_tensors
        (scale,) = grads
        return grad_user_TD * scale, grad_table_RD * scale, None, None, None


def sum_by_row(rows: tuple[Tensor, ...], gradients: tuple[Tensor, ...], table_RD: Tensor) -> Tensor:
    """The gradient of a table, `[R, D]`, of which some rows were looked up.

    Args:
        rows: row numbers of each look-up.
        gradients: what comes back to each of them.
        table_RD: the table.
    """
    if table_RD.device.type == "cpu":
        total_RD = torch.zeros_like(table_RD)
        for places, gradient in zip(rows, gradients, strict=True):
            total_RD.index_add_(0, places, gradient)
        return total_RD
    # `index_add_` on a GPU adds in an order that changes from run to run; an embedding's gradient does not.
    total_RD = torch.ops.aten.embedding_dense_backward(torch.cat(gradients), torch.cat(rows), len(table_RD), -1, False)
    return total_RD


def accidental_hits(targets_C: Tensor, negatives_S: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns of the logits where a negative equals the target.

    The negatives are sorted, so equal ones are neighbours, and a binary search finds them without a comparison of all
    pairs.

    Args:
        targets_C: rows of the step's item vectors.
        negatives_S: rows of the step's item vectors, not decreasing.
    """
    begin_C = torch.searchsorted(negatives_S, targets_C)
    count_C = torch.searchsorted(negatives_S, targets_C, right=True) - begin_C
    rows = torch.repeat_interleave(count_C)
    before_C = count_C.cumsum(0) - count_C
    columns = torch.arange(len(rows), device=rows.device) + (begin_C - before_C)[rows]
    return rows, columns


def all_hits(targets_C: Tensor, negatives_S: Tensor) -> Tensor:
    """Whether each negative equals each target, `[C, S]`.

    A GPU compares all pairs, so that the host needs not wait for the number of hits.
    """
    return targets_C[:, None] == negatives_S
