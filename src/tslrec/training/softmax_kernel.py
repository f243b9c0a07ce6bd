"""A Triton kernel for the softmax over all items: logits become exponentials in place, row by row.

PyTorch's own operations for the same read or write each logit six times; this reads it twice and writes it once.
Imported only where the logits are on a GPU, because Triton exists only there.

Shapes: C users of a chunk, P items and the columns that fill a row up to an aligned width.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_ITEMS = 4096
"""Logits of a row that a program holds at a time, in registers: 16 for each thread, in four loads of 16 bytes."""
NUM_WARPS = 8
LOWEST = tl.constexpr(-1e38)
"""Below any logit, and finite: the difference of two infinities would not be a number."""


# Triton reads annotations as its own. The sizes are constants of the kernel, so one is built for each catalogue. Loads
# and stores go up to WIDTH, which is aligned: with a limit in the midst of 16 bytes, each number would go by itself.
@triton.jit
def exponentiate_rows(  # type: ignore[no-untyped-def]
    logits, row_stride, columns, sums, margins, NUM_ITEMS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """One program per row of the logits; see `exponentiate`."""
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * row_stride
    precise = sums.dtype.element_ty
    target = tl.load(columns + row)
    target_logit = tl.load(start + target).to(precise)
    offsets = tl.arange(0, BLOCK)

    # First pass. Each place of the block keeps a maximum of its own and a sum relative to it, so that the threads of
    # the program have to wait for each other only once per row. Of e^(old - new maximum) and e^(logit - new maximum),
    # one is always 1.
    largest = tl.full((BLOCK,), LOWEST, precise)
    total = tl.zeros((BLOCK,), precise)
    for begin in range(0, NUM_ITEMS, BLOCK):
        here = begin + offsets
        logit = tl.load(start + here, mask=here < WIDTH, other=0.0).to(precise)
        logit = tl.where(here < NUM_ITEMS, logit, -float("inf"))
        difference = logit - largest
        smaller = tl.exp(-tl.abs(difference))
        total = tl.where(difference > 0, total * smaller + 1, total + smaller)
        largest = tl.maximum(largest, logit)
    row_largest = tl.max(largest, 0)
    row_sum = tl.sum(total * tl.exp(largest - row_largest), 0)
    tl.store(sums + row, row_sum)
    tl.store(margins + row, row_largest - target_logit)

    # Second pass. No other program reads or writes this row.
    for begin in range(0, NUM_ITEMS, BLOCK):
        here = begin + offsets
        logit = tl.load(start + here, mask=here < WIDTH, other=0.0).to(precise)
        exponential = tl.exp(tl.where(here < NUM_ITEMS, logit, -float("inf")) - row_largest)
        exponential = tl.where(here == target, exponential - row_sum, exponential)
        tl.store(start + here, exponential.to(logits.dtype.element_ty), mask=here < WIDTH)


def exponentiate(logits_CP: Tensor, num_items: int, columns_C: Tensor, sums_C: Tensor, margins_C: Tensor) -> None:
    """`exponentiate_plainly` of `softmax_on_device` as one kernel; the exponentials differ in their last bits only.

    Args:
        logits_CP: overwritten, what fills a row up to its width too; neighbours in a row are neighbours in memory.
        num_items: I.
        columns_C: int64, the column of each row's target.
        sums_C: overwritten; float32, or float64 for logits in float64.
        margins_C: overwritten; of the same type.
    """
    with torch.cuda.device_of(logits_CP):
        exponentiate_rows[(len(logits_CP),)](
            logits_CP,
            logits_CP.stride(0),
            columns_C,
            sums_C,
            margins_C,
            NUM_ITEMS=num_items,
            WIDTH=logits_CP.shape[1],
            BLOCK=BLOCK_ITEMS,
            num_warps=NUM_WARPS,
        )
