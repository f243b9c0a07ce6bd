"""Bytes that the forward pass of a training step keeps for its backward pass.

They are counted operation by operation, as PyTorch saves tensors for a Llama with LoRA: a frozen linear layer saves
nothing of its input, a norm its input in float32, LoRA the input of its down-projection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tslrec.llm.shape import Shape
from tslrec.reports.costs.placement import Placement
from tslrec.settings.language_models import LoraConfig

NORM_WIDTH = 4
"""Bytes of a number of a norm's input, which is converted to float32."""

ITEM_WIDTH = 4
"""Bytes of a number of an item embedding, which is float32 as the item projection is."""

SHARED_INPUTS = {
    "q_proj": "attention",
    "k_proj": "attention",
    "v_proj": "attention",
    "gate_proj": "feed-forward",
    "up_proj": "feed-forward",
}
"""Linear layers that read the same hidden states as others, and of what part of a decoder layer."""


@dataclass(frozen=True)
class Step:
    """The size of one step: examples packed into rows after an instruction.

    Attributes:
        instruction: tokens of the instruction.
        rows: rows of the step; a fraction is a device's mean share.
        width: tokens of a row after the instruction.
        shared: whether the instruction runs once for all rows; false: each row begins with it.
    """

    instruction: int
    rows: float
    width: int
    shared: bool = True

    @property
    def tokens(self) -> float:
        """Tokens that the step computes."""
        if self.shared:
            return self.instruction + self.rows * self.width
        return self.rows * (self.instruction + self.width)

    @property
    def queries(self) -> float:
        """Tokens that attend with a mask: those of the rows."""
        return self.rows * self.width if self.shared else self.tokens

    @property
    def keys(self) -> float:
        """Keys of all rows, each with the instruction in front."""
        return self.rows * (self.instruction + self.width)


def kept_bytes(
    shape: Shape, lora: LoraConfig, step: Step, placement: Placement, item_size: int, mask_width: int = 1
) -> float:
    """Bytes that are kept at the end of the forward pass, and with gradient checkpointing while it is recomputed.

    With gradient checkpointing only the inputs of the layers are kept; the backward pass recomputes one layer at a
    time, and keeps all of it.

    Args:
        shape: sizes of the language model.
        lora: the adapter.
        step: the size of the step.
        placement: how the language model is held.
        item_size: width of the backbone's item embeddings.
        mask_width: bytes of a number of a dropout mask, 1 on GPUs.
    """
    layer = layer_bytes(shape, lora, step, placement, mask_width)
    outside = step.tokens * (shape.hidden_size + 1) * NORM_WIDTH
    outside += step.rows * step.width * item_size * ITEM_WIDTH
    outside += 2 * step.tokens * shape.head_dim * placement.width
    if placement.gradient_checkpointing:
        inputs = shape.num_hidden_layers * step.tokens * shape.hidden_size * placement.width
        return inputs + layer + outside
    return shape.num_hidden_layers * layer + outside


def layer_bytes(shape: Shape, lora: LoraConfig, step: Step, placement: Placement, mask_width: int) -> float:
    """Bytes that one decoder layer keeps."""
    norms = 2 * step.tokens * (shape.hidden_size + 1) * NORM_WIDTH
    feed_forward = 3 * step.tokens * shape.intermediate_size * placement.width
    attention = attention_bytes(shape, step, placement.width)
    return norms + feed_forward + attention + adapter_bytes(shape.linears, lora, step, placement, mask_width)


def attention_bytes(shape: Shape, step: Step, width: int) -> float:
    """Bytes that the attention of one layer keeps: queries, keys, values, mask, outputs and normalisers."""
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    group = shape.num_attention_heads // shape.num_key_value_heads
    normalisers = step.tokens * shape.num_attention_heads * 4
    mask = step.queries * (step.instruction + step.width) * width
    if not step.shared:
        return 4 * step.tokens * queries * width + mask + normalisers
    # Queries that share a key-value head are copied side by side, and so is the mask. The instruction's keys and values
    # are copied for each query head, and its output is kept apart.
    copied = step.queries * queries if group > 1 else 0
    rows = step.tokens * queries + copied + 2 * step.keys * keys + step.queries * queries
    return (rows + 3 * step.instruction * queries) * width + group * mask + normalisers


def adapter_bytes(
    linears: Mapping[str, tuple[int, int]], lora: LoraConfig, step: Step, placement: Placement, mask_width: int
) -> float:
    """Bytes that LoRA keeps in one layer: the inputs of its two products, and dropout masks.

    Layers that read the same hidden states keep them once, unless each of them drops some.
    """
    adapted = {name: sizes for name, sizes in linears.items() if name.endswith(tuple(lora.targets))}
    width = placement.width
    inner = len(adapted) * lora.rank * width
    if lora.dropout > 0:
        inputs = sum(inputs * (width + mask_width) for inputs, _ in adapted.values())
    else:
        inputs = width * sum({SHARED_INPUTS.get(name, name): inputs for name, (inputs, _) in adapted.items()}.values())
    return step.tokens * (inner + inputs)
