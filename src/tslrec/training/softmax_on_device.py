"""The softmax over all items as a GPU computes it: the same work for every input, and no number goes to the host.

So a step can be captured in a CUDA graph, as soon as it has run once (the first run builds the kernel). No operation
here adds in an order that changes from run to run: the same inputs give the same bits again on the same GPU.

How it compares with the two kernels that are known for language models, whose vocabulary is small (tens of
thousands) and whose vectors are wide (thousands), while a catalogue has up to millions of items and vectors of 64:

- Liger's `fused_linear_cross_entropy` also takes gradients in the forward pass, three products in all. But by default
  it cuts users into chunks whose logits need no more memory than the user vectors, up to I / D chunks: with a million
  items, D = 64 and some thousand users, one user a chunk, so its products are matrix-vector products. It also asks the
  device for the number of targets (`.item()`), which a CUDA graph cannot hold.
- Apple's `cut_cross_entropy` never writes logits: it computes them in the forward pass and again in the backward pass,
  four products in all, by Triton instead of cuBLAS. By default it leaves out terms of a gradient that are below the
  rounding of its type, and its blocks add to the same place in no fixed order.

This one: three products, the minimum, all by cuBLAS; every term counts; logits of one chunk at a time, held in as many
bytes as `chunk_users` says. What it pays is traffic: a logit crosses the memory bus six times.

Products are as exact as `torch.set_float32_matmul_precision` says, like those of the model's own layers. With `high`
they round their factors to TF32 (11 significant bits) and add in float32, so gradients are exact to about 1 part in
1,000: far below what the choice of a batch changes, and what the layers below have anyway. The target's logit comes
from the same product as the others, so a loss stays at or above 0 in either case.

Shapes: B users, I items (row 0 of the table is padding), D size of a user vector, C users of a chunk, P items and
the columns that fill a row up to an aligned width, S stretches of items, W items of a stretch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from tslrec.training.target_mix import Bag, TargetMix

log = logging.getLogger(__name__)

Exponentiate = Callable[[Tensor, int, Tensor, Tensor, Tensor], None]
"""See `exponentiate_plainly`."""

CHUNK_BYTES = 256 * 2**20
"""Bytes of logits held at a time, where `LEAST_USERS` and twice D do not ask for more."""
LEAST_USERS = 256
"""Users of a chunk at least: two rows for each multiprocessor of a large GPU, two tiles for a matrix product."""
PARTIAL_SUMS = 2**21
"""Numbers in the partial sums of `sum_over_items`, about as many as a large GPU computes at a time."""
LEAST_STRETCH = 1024
"""Items of a stretch at least, so that a product computes much more than it writes."""
ALIGNED = 32
"""Rows of logits, and stretches of items, begin at multiples of so many numbers, as the fast kernels want."""


def softmax_on_device(
    user_BD: Tensor,
    table_ID: Tensor,
    targets_B: Tensor,
    weights_B: Tensor | None,
    mix: TargetMix | None = None,
    *,
    need_user: bool,
    need_table: bool,
    exponentiate: Exponentiate | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The loss of `softmax_loss` and its gradients.

    Args:
        user_BD: user vectors.
        table_ID: the item table; row 0 is padding.
        targets_B: item ids, from 1; 0 where the weight is 0.
        weights_B: see `softmax_loss`.
        mix: see `softmax_loss`.
        need_user: whether to compute the gradient of the user vectors.
        need_table: whether to compute that of the table.
        exponentiate: turns logits into exponentials; None: the kernel where there is one.

    Returns:
        The summed loss, a scalar, and both gradients, or None for those that are not needed.
    """
    exponentiate = exponentiate or best_exponentiate(user_BD.device.type)
    (size, width), items_ID = user_BD.shape, table_ID[1:]
    precise = torch.promote_types(user_BD.dtype, torch.float32)
    columns_B = (targets_B - 1).clamp_(min=0)
    sums_B = torch.empty(size, dtype=precise, device=user_BD.device)
    margins_B = torch.empty_like(sums_B)
    grad_user_BD = torch.empty_like(user_BD, memory_format=torch.contiguous_format) if need_user else None
    # The first chunk overwrites it.
    make = torch.empty_like if size else torch.zeros_like
    grad_table_ID = make(table_ID, memory_format=torch.contiguous_format) if need_table else None
    users = chunk_users(size, len(items_ID), width, user_BD.element_size())
    buffer_CP = user_BD.new_empty(min(users, size), aligned(len(items_ID)))
    for start in range(0, size, users):
        chunk = slice(start, start + users)
        user_CD, sums_C = user_BD[chunk], sums_B[chunk]
        logits_CP = buffer_CP[: len(user_CD)]
        logits_CI = torch.mm(user_CD, items_ID.T, out=logits_CP[:, : len(items_ID)])
        bag = None if mix is None else mix.bag(chunk)
        elsewhere_C = None if mix is None else logits_elsewhere(logits_CI, columns_B[chunk], mix, bag)
        exponentiate(logits_CP, len(items_ID), columns_B[chunk], sums_C, margins_B[chunk])
        if mix is not None and elsewhere_C is not None:
            margins_B[chunk].add_(elsewhere_C)
            move_shares(logits_CI, columns_B[chunk], sums_C, mix, bag)
        # The gradient of each row's logits, times the row's sum.
        gradient_CI = logits_CI
        scale_C = sums_C.reciprocal() if weights_B is None else weights_B[chunk] / sums_C
        scale_C1 = scale_C.to(user_BD.dtype)[:, None]
        if grad_user_BD is not None:
            sum_over_items(gradient_CI, items_ID, grad_user_BD[chunk])
            grad_user_BD[chunk].mul_(scale_C1)
        if grad_table_ID is not None:
            scaled_CD = user_CD * scale_C1
            if start == 0:
                grad_table_ID[0].zero_()
                torch.mm(gradient_CI.T, scaled_CD, out=grad_table_ID[1:])
            else:
                grad_table_ID[1:].addmm_(gradient_CI.T, scaled_CD)
    losses_B = sums_B.log_().add_(margins_B)
    if mix is not None and mix.uniform > 0:
        mean_D = items_ID.mean(dim=0)
        losses_B.sub_((user_BD * mean_D).sum(dim=1), alpha=mix.uniform)
        weighted_BD = user_BD if weights_B is None else user_BD * weights_B[:, None]
        if grad_user_BD is not None:
            counted_B1 = 1.0 if weights_B is None else weights_B[:, None]
            grad_user_BD.sub_(counted_B1 * mean_D, alpha=mix.uniform)
        if grad_table_ID is not None:
            grad_table_ID[1:].sub_(weighted_BD.sum(dim=0), alpha=mix.uniform / len(items_ID))
    if weights_B is not None:
        losses_B = losses_B * weights_B
    return losses_B.sum(dtype=torch.float64).to(user_BD.dtype), grad_user_BD, grad_table_ID


def logits_elsewhere(logits_CI: Tensor, columns_C: Tensor, mix: TargetMix, bag: Bag | None) -> Tensor:
    """What a loss has more than that of the target alone, without the uniform part, `[C]`.

    Args:
        logits_CI: of a chunk.
        columns_C: of the targets.
        mix: the distributions of the targets.
        bag: its further items.
    """
    moved_C = logits_CI.gather(1, columns_C[:, None])[:, 0] * (1 - mix.kept)
    return moved_C if bag is None else moved_C - bag.mean_logits(logits_CI)


def move_shares(gradient_CI: Tensor, columns_C: Tensor, sums_C: Tensor, mix: TargetMix, bag: Bag | None) -> None:
    """Gives the further items their shares of the target, and takes them from it, in the gradient times the row's sum.

    Args:
        gradient_CI: that of the target alone; changed in place.
        columns_C: of the targets.
        sums_C: of each row's exponentials.
        mix: the distributions of the targets.
        bag: its further items.
    """
    # The places of one call differ within a row, so no order of adding changes a bit.
    gradient_CI.scatter_add_(1, columns_C[:, None], (sums_C * (1 - mix.kept)).to(gradient_CI.dtype)[:, None])
    if bag is not None:
        bag.subtract_from(gradient_CI, sums_C)


def chunk_users(num_users: int, num_items: int, width: int, element_size: int) -> int:
    """Users of a chunk, all of about equal size.

    At least 2 D: then the logits' passes over memory outweigh those over the table and its gradient, which each chunk
    goes through too. They take up to twice the memory of the table: as much as Adam's two moments.
    """
    most = max(LEAST_USERS, 2 * width, CHUNK_BYTES // (num_items * element_size))
    chunks = max(1, -(-num_users // most))
    # Multiples of 16, so that the kernel finds every chunk's numbers aligned alike, and is built only once.
    return max(16, -(-num_users // (16 * chunks)) * 16)


def sum_over_items(factor_CI: Tensor, items_ID: Tensor, out_CD: Tensor) -> None:
    """`out = factor @ items`, a long sum for few results: as partial sums over stretches of items, side by side.

    A GPU would otherwise compute it on as many multiprocessors as the result has tiles, two of them at worst.

    Args:
        factor_CI: neighbours in a row must be neighbours in memory.
        items_ID: the item table without padding.
        out_CD: overwritten.
    """
    num_items = len(items_ID)
    stretches = min(num_items // LEAST_STRETCH, PARTIAL_SUMS // max(1, out_CD.numel()))
    # In half precision partial sums would be rounded.
    if stretches < 2 or factor_CI.element_size() < 4:
        torch.mm(factor_CI, items_ID, out=out_CD)
        return
    width = aligned(-(-num_items // stretches))
    whole = num_items // width
    cut = whole * width
    factor_SCW = factor_CI[:, :cut].unflatten(1, (whole, width)).transpose(0, 1)
    items_SWD = items_ID[:cut].unflatten(0, (whole, width))
    torch.sum(torch.bmm(factor_SCW, items_SWD), dim=0, out=out_CD)
    if cut < num_items:
        out_CD.addmm_(factor_CI[:, cut:], items_ID[cut:])


def aligned(columns: int) -> int:
    """The next multiple of `ALIGNED`."""
    return -(-columns // ALIGNED) * ALIGNED


def exponentiate_plainly(
    logits_CP: Tensor, num_items: int, columns_C: Tensor, sums_C: Tensor, margins_C: Tensor
) -> None:
    """Turns logits into the gradient of the cross-entropy, times the row's sum of exponentials.

    With m the largest logit of a row, s = sum over items of e^(logit - m): an item's place holds e^(logit - m) at the
    end, and the target's e^(logit - m) - s.

    Args:
        logits_CP: overwritten; what comes after the items means nothing.
        num_items: I.
        columns_C: int64, the column of each row's target.
        sums_C: overwritten with s; in at least float32.
        margins_C: overwritten with m - the target's logit; log(s) more is the loss.
    """
    logits_CI, columns_C1 = logits_CP[:, :num_items], columns_C[:, None]
    largest_C1 = logits_CI.amax(dim=1, keepdim=True)
    margins_C.copy_((largest_C1.to(margins_C.dtype) - logits_CI.gather(1, columns_C1))[:, 0])
    logits_CI.sub_(largest_C1).exp_()
    torch.sum(logits_CI, dim=1, dtype=sums_C.dtype, out=sums_C)
    logits_CI.scatter_(1, columns_C1, (logits_CI.gather(1, columns_C1) - sums_C[:, None]).to(logits_CI.dtype))


def best_exponentiate(device_type: str) -> Exponentiate:
    """The Triton kernel on a GPU where Triton works, PyTorch's own operations elsewhere."""
    return (fused_exponentiate() if device_type == "cuda" else None) or exponentiate_plainly


@cache
def fused_exponentiate() -> Exponentiate | None:
    """The Triton kernel, built and run once; None, with a warning, where it cannot be.

    Triton is a part of PyTorch's builds for NVIDIA and AMD on Linux. It needs a C compiler and Python's headers.
    """
    try:
        from tslrec.training.softmax_kernel import exponentiate

        columns_C, results_C = torch.zeros(16, dtype=torch.int64, device="cuda"), torch.zeros(2, 16, device="cuda")
        exponentiate(torch.zeros(16, ALIGNED, device="cuda"), ALIGNED, columns_C, *results_C)
    except Exception as error:  # Triton's own errors are no subclasses of anything narrower.
        reason = str(error).strip().partition("\n")[0]
        log.warning(
            "softmax: no Triton kernel here, PyTorch's own operations take its place, slower and with the same "
            "results (%s: %s)",
            type(error).__name__,
            reason,
        )
        return None
    return exponentiate
