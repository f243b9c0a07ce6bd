"""What a plan says of one pass of a language model, and of a method whose language model recommends by itself."""

from __future__ import annotations

from dataclasses import dataclass

INFERENCE_BATCH = 32
"""Prompts per forward pass of an inference."""


@dataclass(frozen=True)
class Phase:
    """An epoch of a training, or an inference for all users.

    Attributes:
        examples: number of sequences.
        needed: tokens without padding.
        tokens: tokens that are computed, the padding of packed rows included.
        flops: floating-point operations.
        seconds: the time on one device.
        bound_by: what sets the time, see `timing.Bound`.
    """

    examples: int
    needed: int
    tokens: int
    flops: float
    seconds: float
    bound_by: str


@dataclass(frozen=True)
class RivalPlan:
    """The forecast of a method whose language model recommends by itself.

    Attributes:
        title: the method, and the kind of its language model.
        model: the language model.
        parameters: of the language model.
        trainable: number of trainable parameters.
        epoch: an epoch of the training.
        epochs: how many are configured, at most.
        inference: a list for each user, by one ranking protocol.
        memory_gib: memory of the training on one device.
        assumptions: what the counts take for granted.
    """

    title: str
    model: str
    parameters: int
    trainable: int
    epoch: Phase
    epochs: float
    inference: Phase
    memory_gib: float
    assumptions: tuple[str, ...]
