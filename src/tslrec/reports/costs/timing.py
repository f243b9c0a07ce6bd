"""The time of a phase: what it computes, and the weights that it moves, at the rates of a device.

Matrix products take the time of their arithmetic or, with few tokens, of reading the weights. The rest of a step is
proportional to its arithmetic: with enough tokens a step reaches `DeviceProfile.step_share` of the products' rate.
Copies from host memory run meanwhile, and so does the host, which launches the kernels: with few tokens a step takes
the time of that. What devices exchange is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from tslrec.llm.shape import Shape
from tslrec.reports.costs.gathering import gathered_parameters
from tslrec.reports.costs.memory import linear_bytes
from tslrec.reports.costs.placement import Placement
from tslrec.system.device_profiles import DeviceProfile

GIGA, TERA = 1e9, 1e12

BACKWARD_LAUNCHES = 1
"""Launches of a backward pass, as a share of those of a forward pass. Measured: with few tokens a training step of
Llama-2-13B takes about twice as long as a batch of an inference."""


@dataclass(frozen=True)
class Bound:
    """The time of a phase on one device.

    Attributes:
        seconds: the time.
        by: what sets it: `arithmetic`, `memory`, `PCIe` or `launches`.
    """

    seconds: float
    by: str


@dataclass(frozen=True)
class Traffic:
    """What one step asks of the device beside its arithmetic.

    Attributes:
        memory: bytes of weights that are read from the device's memory.
        link: bytes of weights that are copied from host memory.
        layers: decoder layers whose kernels are launched one after the other, each pass counted anew, where the whole
            prompt is one sequence.
    """

    memory: float
    link: float
    layers: int = 0


def training_traffic(shape: Shape, placement: Placement) -> Traffic:
    """What a training step moves: it reads the weights once in the forward pass and once in the backward pass."""
    passes = 2 + placement.gradient_checkpointing
    gathered = gathered_parameters(shape, gradient_checkpointing=placement.gradient_checkpointing)
    return Traffic(
        memory=passes * linear_bytes(shape, placement),
        link=gathered * placement.width if placement.streams_weights else 0.0,
        layers=shape.num_hidden_layers * (1 + BACKWARD_LAUNCHES + placement.gradient_checkpointing),
    )


def inference_traffic(shape: Shape, placement: Placement, *, under_strategy: bool) -> Traffic:
    """What a batch of an inference moves.

    Args:
        shape: sizes of the language model.
        placement: how the language model is held in training.
        under_strategy: whether the inference runs under the strategy of the training. If not, each device holds all
            weights.
    """
    streams = under_strategy and placement.streams_weights
    copied = shape.num_parameters * placement.width if streams else 0.0
    return Traffic(linear_bytes(shape, placement), copied, shape.num_hidden_layers)


def bound_of(
    flops: float, steps: int, traffic: Traffic, profile: DeviceProfile, *, in_16_bits: bool, parts: int = 1
) -> Bound:
    """The time of a phase and what sets it.

    Args:
        flops: floating-point operations of the phase.
        steps: its steps or batches.
        traffic: what each of them asks for.
        profile: the device.
        in_16_bits: whether matrix products are computed in 16 bits.
        parts: passes that a step makes one after the other: two where the shared part of a prompt runs by itself.
    """
    rate = (profile.bf16_tflops if in_16_bits else profile.fp32_tflops) * TERA
    arithmetic = flops / rate
    rest = arithmetic * (1 / profile.step_share - 1)
    memory = 0.0 if profile.memory_gbs is None else steps * traffic.memory / (profile.memory_gbs * GIGA)
    link = 0.0 if profile.link_gbs is None else steps * traffic.link / (profile.link_gbs * GIGA)
    products = Bound(arithmetic, "arithmetic") if arithmetic >= memory else Bound(memory, "memory")
    on_device = Bound(products.seconds + rest, products.by)
    launches = 0.0 if profile.layer_ms is None else steps * parts * traffic.layers * profile.layer_ms / 1e3
    return max(on_device, Bound(link, "PCIe"), Bound(launches, "launches"), key=lambda bound: bound.seconds)
