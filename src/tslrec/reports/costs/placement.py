"""How a configuration holds the language model while it trains: precisions, and what ZeRO partitions or offloads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tslrec.config import Config
from tslrec.llm.shape import BYTES
from tslrec.settings.trainer import TrainerConfig

HALVES = {"bf16": "bfloat16", "16": "float16"}
"""The 16-bit types by the first part of Lightning's names of precisions."""


@dataclass(frozen=True)
class Placement:
    """How the language model is held while it trains.

    Attributes:
        dtype: type of the frozen weights and of the hidden states.
        in_16_bits: whether matrix products are computed in 16 bits.
        weight_bits: see `LLMConfig`.
        gradient_checkpointing: see `LLMConfig`.
        zero_stage: DeepSpeed's ZeRO stage, 0 to 3.
        offload_optimizer: whether the states of the trainable parameters are in host memory.
        offload_parameters: whether the weights are in host memory (stage 3 only).
    """

    dtype: str = "float32"
    in_16_bits: bool = False
    weight_bits: int | None = None
    gradient_checkpointing: bool = False
    zero_stage: int = 0
    offload_optimizer: bool = False
    offload_parameters: bool = False

    @property
    def streams_weights(self) -> bool:
        """Whether the weights come from host memory in every pass."""
        return self.zero_stage == 3 and self.offload_parameters

    @property
    def width(self) -> int:
        """Bytes of a weight that is not quantised, of a number of a hidden state and of an input of LoRA's."""
        return BYTES[self.dtype]


def placement_of(config: Config) -> Placement:
    """How a configuration holds the language model while it trains."""
    dtype, in_16_bits = precisions(config.llm.dtype, config.trainer.llm_precision)
    zero = zero_settings(config.trainer)
    return Placement(
        dtype=dtype,
        in_16_bits=in_16_bits,
        weight_bits=config.llm.weight_bits,
        gradient_checkpointing=config.llm.gradient_checkpointing,
        zero_stage=int(zero.get("stage", 0)),
        offload_optimizer=bool(zero.get("offload_optimizer", False)),
        offload_parameters=bool(zero.get("offload_parameters", False)),
    )


def precisions(dtype: str, precision: str) -> tuple[str, bool]:
    """The type of the frozen weights, and whether products are computed in 16 bits.

    Lightning's `bf16-true` and `16-true` convert the whole module. Otherwise LoRA's weights are float32; its products
    have the type of the hidden states in any case.

    Args:
        dtype: `llm.dtype`.
        precision: `trainer.llm_precision`, as Lightning names it.
    """
    kind, _, how = precision.partition("-")
    half = HALVES.get(kind)
    if half is not None and how == "true":
        return half, True
    return dtype, half is not None or BYTES[dtype] == 2


def zero_settings(trainer: TrainerConfig) -> dict[str, Any]:
    """The settings of DeepSpeed's ZeRO for the language model; empty under another strategy."""
    strategy = trainer.llm_strategy
    return dict(strategy) if isinstance(strategy, dict) and "stage" in strategy else {}
