"""What the preference SFT needs of a GPU's memory and of a node's, by how it is spread over devices.

Sources: Rajbhandari et al. 2020 (ZeRO) for what each stage partitions; DeepSpeed 0.19's own estimators for the working
space of parameter offload and the buffer factor of 1.5 in host memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from tslrec.llm.shape import BYTES, Shape

GIB = 2**30
STATE_BYTES = 16
"""Of a trainable parameter: itself and its gradient in 16 bits, a master copy and Adam's two moments in 32."""
GATHERED_PARAMETER_BYTES = 4
"""Of the largest layer, in which ZeRO-3 with offload holds a layer and its gradient while it computes."""
HOST_BUFFER = 1.5
QUANTISED_BITS = {8: 8.0, 4: 4.127}
"""Of a weight: NF4 has scales of its blocks, which are quantised as well (Dettmers et al. 2023)."""


@dataclass(frozen=True)
class Memory:
    """In GiB.

    Attributes:
        devices: over which things are spread; on one node.
        weights: of a device, the frozen language model.
        states: of a device, what is trained, with gradients and Adam's moments.
        working: of a device, the layer that is gathered to compute.
        activations: of a device, kept for the backward pass; an estimate.
        host: of the node, what is offloaded, with DeepSpeed's buffers.
    """

    devices: int
    weights: float
    states: float
    working: float
    activations: float
    host: float

    @property
    def device(self) -> float:
        """All of a device."""
        return self.weights + self.states + self.working + self.activations


def sft_memory(
    shape: Shape,
    trainable: int,
    dtype: str,
    tokens_per_step: float,
    devices: int,
    *,
    zero_stage: int = 0,
    offload_optimizer: bool = False,
    offload_parameters: bool = False,
    weight_bits: int | None = None,
    gradient_checkpointing: bool = False,
) -> Memory:
    """Memory of the SFT.

    Args:
        shape: sizes of the language model.
        trainable: parameters that are trained.
        dtype: of the frozen weights.
        tokens_per_step: computed in a step, over all devices.
        devices: of one node.
        zero_stage: 0 to 3.
        offload_optimizer: whether the trained states are in host memory.
        offload_parameters: whether the weights are (stage 3 only).
        weight_bits: see `LLMConfig`.
        gradient_checkpointing: likewise.
    """
    weights = weight_bytes(shape, dtype, weight_bits) / GIB
    states = trainable * STATE_BYTES / GIB
    whole_states = states
    host = working = 0.0
    if zero_stage == 3:
        working = shape.largest_layer * GATHERED_PARAMETER_BYTES / GIB
        if offload_parameters:
            host += HOST_BUFFER * weights
            weights = 0.0
        else:
            weights /= devices
    if zero_stage >= 1:
        states /= devices
    if offload_optimizer:
        host += HOST_BUFFER * whole_states
        states = 0.0
    return Memory(
        devices=devices,
        weights=weights,
        states=states,
        working=working,
        activations=activation_bytes(shape, dtype, gradient_checkpointing) * tokens_per_step / devices / GIB,
        host=host,
    )


def weight_bytes(shape: Shape, dtype: str, weight_bits: int | None) -> float:
    """Of the frozen weights; quantised are the linear layers of the blocks alone."""
    if weight_bits is None:
        return shape.num_parameters * BYTES[dtype]
    others = shape.num_parameters - shape.linear_parameters
    return shape.linear_parameters * QUANTISED_BITS[weight_bits] / 8 + others * BYTES[dtype]


def activation_bytes(shape: Shape, dtype: str, gradient_checkpointing: bool = False) -> int:
    """Kept of each token for the backward pass; with checkpointing the layers' inputs, and all of one layer.

    Frozen linear layers keep no input. What is kept: the inputs of both norms and what they give to LoRA, queries,
    keys, values and their rotated forms, the attention's output, and the four arrays of the gated feed-forward.
    """
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    elements = 4 * shape.hidden_size + 3 * queries + 4 * keys + 4 * shape.intermediate_size
    if gradient_checkpointing:
        return (shape.num_hidden_layers * shape.hidden_size + elements) * BYTES[dtype]
    return shape.num_hidden_layers * elements * BYTES[dtype]
