"""Operations of beam searches by a decoder-only language model, as P5's after a prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tslrec.llm.shape import Shape


def beam_flops(
    shape: Shape, head: int, prompts_B: NDArray[np.int64], length: int, beams: int, searches: int
) -> tuple[float, float]:
    """Floating-point operations after each prompt, the prompt's keys and values kept.

    Args:
        shape: sizes of the language model.
        head: tokens that have logits.
        prompts_B: tokens of each prompt. It is read once, and gives the first token's logits.
        length: tokens that are generated. The last one is not read.
        beams: beams of a search.
        searches: searches per prompt, as one per ranking protocol.

    Returns:
        The operations, and the number of tokens read.
    """
    prompts_B = prompts_B.astype(np.float64)
    count = len(prompts_B)
    read = beams * (length - 1)
    tokens = float(prompts_B.sum()) + searches * read * count
    # A generated token sees the prompt, the generated tokens before it and itself.
    behind = beams * length * (length - 1) / 2
    seen = float((prompts_B * (prompts_B + 1) / 2).sum()) + searches * float((read * prompts_B + behind).sum())
    logits = count * (1 + searches * read)
    return shape.forward_flops(tokens, seen) + 2.0 * head * shape.hidden_size * logits, tokens
