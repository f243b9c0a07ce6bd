"""The arithmetic that an epoch cannot do without, and how fast this machine multiplies matrices: the floor of its time.

What is counted is matrix products, three times each (forward, and a gradient for each factor):

- the softmax over all items, for each training target;
- the encoder of a causal model, once for each item of a history, since one pass gives all its positions;
- the encoder of a model that is not causal, once for each target's own window: FMLP-Rec over the whole window, padding
  included (its filter is circular over it), the last layer at the last position only; Caser over the items in it, since
  padding is zeros. Sharing products between the windows of one history is not counted as possible.

Layer norms, dropout, the optimizer and all memory traffic are left out, so no program reaches the floor.

Shapes: N training targets.
"""

from __future__ import annotations

import json
import math
import time

import numpy as np
from numpy.typing import NDArray

from cases import SIZES, Case

PASSES = 3
MATRIX = 2048
SECONDS = 3.0


def epoch_flops(case: Case, num_items: int, contexts_N: NDArray[np.int64]) -> float:
    """Floating-point operations of an epoch.

    Args:
        case: model and sizes.
        num_items: I.
        contexts_N: how many items stand before each target, at most `max_len`.
    """
    softmax = 2 * num_items * case.hidden_size
    encoder = {"sasrec": sasrec, "gru4rec": gru4rec, "fmlp": fmlp, "caser": caser, "lru": lru}[case.model]
    per_context = np.array([0.0, *(encoder(case, context) for context in range(1, case.max_len + 1))])
    return float(PASSES * (softmax * len(contexts_N) + per_context[contexts_N].sum()))


def sasrec(case: Case, context: int) -> float:
    """Forward, for one item that attends to `context` items, itself included."""
    size, numbers = case.hidden_size, SIZES["sasrec"]
    projections = 4 * 2 * size * size
    attention = 2 * 2 * context * size
    feed_forward = 2 * 2 * size * numbers["inner_size"]
    return float(numbers["num_layers"] * (projections + attention + feed_forward))


def gru4rec(case: Case, context: int) -> float:
    """Forward, for one item: three gates, and the layer back to the item's width."""
    size, numbers = case.hidden_size, SIZES["gru4rec"]
    state = numbers["gru_size"]
    inputs = [size] + [state] * (numbers["num_layers"] - 1)
    return float(sum(2 * 3 * state * (width + state) for width in inputs) + 2 * state * size)


def lru(case: Case, context: int) -> float:
    """Forward, for one item: into the complex states and out of them, one step of them, and the feed-forward layer."""
    size = case.hidden_size
    projections = 2 * 2 * size * 4 * size
    recurrence = 8 * 2 * size
    feed_forward = 2 * 2 * size * 4 * size
    return float(SIZES["lru"]["num_layers"] * (projections + recurrence + feed_forward))


def fmlp(case: Case, context: int) -> float:
    """Forward, for one window: a real FFT there and back counts 2.5 L log2 L each for every dimension."""
    size, length = case.hidden_size, case.max_len
    earlier = SIZES["fmlp"]["num_layers"] - 1
    fourier = 2 * 2.5 * length * math.log2(length) * size + 6 * (length // 2 + 1) * size
    feed_forward = 2 * 2 * size * 4 * size
    last = 2 * length * size + feed_forward
    return earlier * (fourier + length * feed_forward) + last


def caser(case: Case, context: int) -> float:
    """Forward, for one window whose first `context` positions hold items."""
    size, length, numbers = case.hidden_size, case.max_len, SIZES["caser"]
    vertical, horizontal = numbers["num_vertical"], numbers["num_horizontal"]
    products = sum(overlaps(height, context, length) for height in range(1, length + 1))
    convolutions = 2 * size * (vertical * context + horizontal * products)
    dense = 2 * size * (vertical * size + horizontal * length) + 2 * size * 2 * size
    return float(convolutions + dense)


def overlaps(height: int, context: int, length: int) -> int:
    """How often a row of a filter of this height lies on one of the first `context` of `length` positions."""
    position = np.arange(context)
    first = np.maximum(0, position - (length - height))
    last = np.minimum(height - 1, position)
    return int((last - first + 1).sum())


def sustained_gflops() -> float:
    """What large fp32 matrix products reach here, in 1e9 operations a second: the median of some seconds of them."""
    import torch

    left, right = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    out = torch.empty(MATRIX, MATRIX)
    torch.mm(left, right, out=out)
    rates, end = [], time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        torch.mm(left, right, out=out)
        rates.append(2 * MATRIX**3 / (time.perf_counter() - began) / 1e9)
    return float(np.median(rates))


if __name__ == "__main__":
    print(json.dumps({"gflops": sustained_gflops()}))
