"""Memory that the preference SFT needs on a GPU and on its host, by how it is spread over devices.

Sources: Rajbhandari et al. 2020 (ZeRO) for what each stage partitions; DeepSpeed 0.19's own estimators for the working
space of parameter offload and the buffer factor of 1.5 in host memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from tslrec.llm.shape import BYTES, Shape

GIB = 2**30
"""Bytes of a GiB."""

STATE_BYTES = 16
"""Bytes per trainable parameter: itself and its gradient in 16 bits, a master copy and Adam's two moments in 32."""

GATHERED_PARAMETER_BYTES = 4
"""Bytes per parameter of the largest layer, which ZeRO-3 with offload holds with its gradient while it computes."""

HOST_BUFFER = 1.5
"""DeepSpeed's factor for buffers in host memory."""

QUANTISED_BITS = {8: 8.0, 4: 4.127}
"""Bits per quantised weight: NF4 adds the scales of its blocks, quantised too (Dettmers et al. 2023)."""


@dataclass(frozen=True)
class Memory:
    """Memory in GiB.

    Attributes:
        devices: number of devices, all on one node.
        weights: per device, the frozen weights of the language model.
        states: per device, trainable parameters with gradients and Adam's moments.
        working: per device, the layer that ZeRO-3 has gathered.
        activations: per device, kept for the backward pass; an estimate.
        host: per node, what is offloaded, with DeepSpeed's buffers.
    """

    devices: int
    weights: float
    states: float
    working: float
    activations: float
    host: float

    @property
    def device(self) -> float:
        """The sum per device."""
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
    """The memory of the preference SFT.

    Args:
        shape: sizes of the language model.
        trainable: number of trainable parameters.
        dtype: precision of the frozen weights.
        tokens_per_step: tokens computed per optimizer step, over all devices.
        devices: number of devices, all on one node.
        zero_stage: DeepSpeed's ZeRO stage, 0 to 3.
        offload_optimizer: whether the states of the trainable parameters are in host memory.
        offload_parameters: whether the weights are in host memory (stage 3 only).
        weight_bits: see `LLMConfig`.
        gradient_checkpointing: see `LLMConfig`.
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
    """Bytes of the frozen weights; only the linear layers of the blocks are quantised."""
    if weight_bits is None:
        return shape.num_parameters * BYTES[dtype]
    others = shape.num_parameters - shape.linear_parameters
    return shape.linear_parameters * QUANTISED_BITS[weight_bits] / 8 + others * BYTES[dtype]


def activation_bytes(shape: Shape, dtype: str, gradient_checkpointing: bool = False) -> int:
    """Bytes kept per token for the backward pass.

    Frozen linear layers keep no input. A layer keeps the inputs of both norms and the norms' outputs for LoRA, queries,
    keys, values and their rotated forms, the attention's output, and the four arrays of the gated feed-forward. With
    gradient checkpointing only the inputs of the layers are kept, and all of this for one layer at a time.
    """
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    elements = 4 * shape.hidden_size + 3 * queries + 4 * keys + 4 * shape.intermediate_size
    if gradient_checkpointing:
        return (shape.num_hidden_layers * shape.hidden_size + elements) * BYTES[dtype]
    return shape.num_hidden_layers * elements * BYTES[dtype]
