"""What DeepSpeed's ZeRO-3 gathers in a step of a language model whose weights are frozen.

Observed in DeepSpeed 0.19 with one process, and counted: its prefetcher gathers ahead until it holds as many parameters
as it may, and keeps them until they are used again. So the last layers of the forward pass are still there when the
backward pass begins with them. With gradient checkpointing every layer is gathered once more when it is recomputed,
except its last linear layer, with which its backward pass begins.
"""

from __future__ import annotations

from tslrec.llm.shape import Shape

LIVE_PARAMETERS = 10**9
"""DeepSpeed's default of `stage3_max_live_parameters`: the prefetcher stops when so many are gathered."""

PREFETCHED_PARAMETERS = 5 * 10**7
"""DeepSpeed's default of `stage3_prefetch_bucket_size`: so many are gathered ahead at a time."""


def held_parameters(shape: Shape, live: int = LIVE_PARAMETERS, prefetched: int = PREFETCHED_PARAMETERS) -> int:
    """The largest number of parameters that are gathered at a time.

    Args:
        shape: sizes of the language model.
        live: `stage3_max_live_parameters`.
        prefetched: `stage3_prefetch_bucket_size`.
    """
    return min(shape.num_parameters, live + prefetched)


def gathered_parameters(shape: Shape, *, gradient_checkpointing: bool, live: int = LIVE_PARAMETERS) -> float:
    """The number of parameters that a training step gathers, each as often as it does.

    Args:
        shape: sizes of the language model.
        gradient_checkpointing: see `LLMConfig`.
        live: `stage3_max_live_parameters`.
    """
    linear = shape.linear_parameters
    inputs, outputs = shape.linears["down_proj"]
    again = linear - shape.num_hidden_layers * inputs * outputs if gradient_checkpointing else 0
    # The token embeddings take no part in the backward pass.
    return 2 * linear - min(linear, live) + again + shape.vocab_size * shape.hidden_size
