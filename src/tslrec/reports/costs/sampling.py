"""Counts tokens on a random part of the examples where there are many.

Shapes: N examples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tslrec.reports.costs.work import PromptTokens, Tokens, both_ways

SAMPLED = 2**15
"""Examples whose tokens are counted one by one; of more, so many are drawn, and the counts scaled."""


def sampled_tokens(
    lengths: NDArray[np.int64], prompt: PromptTokens, batch_size: int, seed: int, *, shared: bool
) -> Tokens:
    """The tokens of one pass over examples, counted on a random part of them where there are many.

    Args:
        lengths: tokens of each example between the parts of the prompt, `[N]`.
        prompt: tokens of the instruction, which all examples share, and of what follows them.
        batch_size: examples per step.
        seed: draws the part, and shuffles it into batches.
        shared: whether the instruction runs once per step and examples share rows.
    """
    count = len(lengths)
    if count > SAMPLED:
        lengths = np.random.default_rng(seed).choice(lengths, SAMPLED, replace=False)
    found = both_ways(lengths, prompt, batch_size, seed)["shared" if shared else "naive"]
    scale = count / len(lengths)
    return Tokens(
        examples=count,
        steps=-(-count // batch_size),
        needed=round(found.needed * scale),
        computed=round(found.computed * scale),
        seen=found.seen * scale,
        largest=found.largest,
    )
