"""Memory that training the language model needs on a GPU and on its host, by how it is spread over devices.

Sources: Rajbhandari et al. 2020 (ZeRO) for what each stage partitions; DeepSpeed 0.19's own estimators for the buffer
factor of 1.5 in host memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, log2

from tslrec.llm.shape import Shape
from tslrec.reports.costs.activations import ITEM_WIDTH, Step, kept_bytes
from tslrec.reports.costs.gathering import held_parameters
from tslrec.reports.costs.placement import Placement
from tslrec.settings.language_models import LoraConfig

GIB = 2**30
"""Bytes of a GiB."""

STATE_BYTES = 16
"""Bytes per trainable parameter: itself, its gradient and Adam's two moments in 32 bits; or under DeepSpeed the first
two in 16 bits, a master copy and the moments in 32."""

HOST_BUFFER = 1.5
"""DeepSpeed's factor for buffers in host memory, of the optimizer's states."""

QUANTISED_BITS = {8: 8.0, 4: 4.127}
"""Bits per quantised weight: NF4 adds the scales of its blocks, quantised too (Dettmers et al. 2023)."""

WORKSPACE_BYTES = 2 * 32 * 2**20
"""cuBLAS's workspaces, which PyTorch allocates: 32 MiB on an H100 (8 MiB on older GPUs), once for the thread of the
forward pass and once for that of the backward pass."""

CONTEXT_BYTES = 0.5 * GIB
"""The CUDA context with its loaded kernels, which PyTorch does not count as its own; an assumption."""


@dataclass(frozen=True)
class Memory:
    """Memory in GiB.

    Attributes:
        devices: number of devices, all on one node.
        weights: per device, the frozen weights of the language model.
        states: per device, trainable parameters with gradients and Adam's moments.
        working: per device, the parameters that ZeRO-3 has gathered.
        activations: per device, kept for the backward pass of the largest step.
        others: per device, the backbone's item embeddings and cuBLAS's workspaces.
        context: per device, the CUDA context.
        host: per node, what is offloaded: pinned weights, and states with DeepSpeed's buffers.
    """

    devices: int
    weights: float
    states: float
    working: float
    activations: float
    others: float
    context: float
    host: float

    @property
    def allocated(self) -> float:
        """What PyTorch allocates per device."""
        return self.weights + self.states + self.working + self.activations + self.others

    @property
    def device(self) -> float:
        """The sum per device."""
        return self.allocated + self.context


def training_memory(
    shape: Shape,
    lora: LoraConfig,
    trainable: int,
    step: Step,
    placement: Placement,
    devices: int = 1,
    *,
    num_items: int = 0,
    item_size: int = 0,
) -> Memory:
    """The memory of training the language model.

    Args:
        shape: sizes of the language model.
        lora: the adapter.
        trainable: number of trainable parameters.
        step: the largest step, over all devices.
        placement: how the language model is held.
        devices: number of devices, all on one node.
        num_items: number of items in the catalogue.
        item_size: width of the backbone's item embeddings.
    """
    weights = weight_bytes(shape, placement) / GIB
    states = trainable * STATE_BYTES / GIB
    whole_states = states
    host = working = 0.0
    if placement.zero_stage == 3:
        working = held_parameters(shape) * placement.width / GIB
        if placement.offload_parameters:
            host += pinned_bytes(shape, placement, devices) / GIB
            weights = 0.0
        else:
            weights /= devices
    if placement.zero_stage >= 1:
        states /= devices
    if placement.offload_optimizer:
        host += HOST_BUFFER * whole_states
        states = 0.0
    own_step = replace(step, rows=step.rows / devices)
    return Memory(
        devices=devices,
        weights=weights,
        states=states,
        working=working,
        activations=kept_bytes(shape, lora, own_step, placement, item_size) / GIB,
        others=(WORKSPACE_BYTES + (num_items + 1) * item_size * ITEM_WIDTH) / GIB,
        context=CONTEXT_BYTES / GIB,
        host=host,
    )


def inference_memory(shape: Shape, placement: Placement, *, num_items: int = 0, item_size: int = 0) -> Memory:
    """The memory of the augmentation, which holds all weights on each device; its batches are small beside them."""
    return Memory(
        devices=1,
        weights=weight_bytes(shape, placement) / GIB,
        states=0.0,
        working=0.0,
        activations=0.0,
        others=(WORKSPACE_BYTES + (num_items + 1) * item_size * ITEM_WIDTH) / GIB,
        context=CONTEXT_BYTES / GIB,
        host=0.0,
    )


def pinned_bytes(shape: Shape, placement: Placement, devices: int = 1) -> float:
    """Bytes of host memory that pinned weights take: PyTorch rounds each tensor up to a power of two.

    Args:
        shape: sizes of the language model.
        placement: how it is held.
        devices: number of devices, each of which pins its share of every weight.
    """
    sizes = [inputs * outputs for inputs, outputs in shape.linears.values()]
    # The two norms of a layer, and outside of the layers the last norm and the table of tokens.
    layer = [*sizes, shape.hidden_size, shape.hidden_size]
    numbers = layer * shape.num_hidden_layers + [shape.hidden_size, shape.vocab_size * shape.hidden_size]
    return float(sum(devices * 2 ** ceil(log2(ceil(number / devices) * placement.width)) for number in numbers))


def weight_bytes(shape: Shape, placement: Placement) -> float:
    """Bytes of the frozen weights; only the linear layers of the blocks are quantised."""
    outside = (shape.num_parameters - shape.linear_parameters) * placement.width
    return outside + linear_bytes(shape, placement)


def linear_bytes(shape: Shape, placement: Placement) -> float:
    """Bytes of the weights of the linear layers of the blocks, all of which a pass reads."""
    if placement.weight_bits is None:
        return shape.linear_parameters * placement.width
    return shape.linear_parameters * QUANTISED_BITS[placement.weight_bits] / 8
