"""The trained layers beside a frozen language model in 16 bits: their weights stay in float32.

An update of AdamW is a small part of its weight, and is lost where the weight has eight bits. So LoRA's weights, the
projection and the heads, and with them the optimizer's states, are float32 where the strategy allows it; DeepSpeed
keeps float32 copies of its own.

Shapes: N tokens, F input features, C output features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from peft import PeftModel


def at_least_float32(numbers: Tensor) -> Tensor:
    """The numbers in float32, or in their own precision if that is higher."""
    return numbers.to(torch.promote_types(numbers.dtype, torch.float32))


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, also where DeepSpeed has rounded its weights to 16 bits."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps `[N, F]` in any precision to float32 `[N, C]`; under autocast, to autocast's precision."""
        return F.linear(*(at_least_float32(each) for each in (input, self.weight, self.bias)))


class LowRankFactor(nn.Linear):
    """One of LoRA's two factors: the weight is kept in float32, the product is computed in the input's precision."""

    def forward(self, input: Tensor) -> Tensor:
        """Maps `[N, F]` to `[N, C]` of the same precision."""
        return F.linear(input, self.weight.to(input.dtype))


def use_low_rank_factors(adapted: PeftModel) -> PeftModel:
    """Makes an adapted model compute LoRA's products in the precision of the language model.

    PEFT would convert the inputs of every adapted layer to float32 and keep these copies for the backward pass, which
    for a large model in bfloat16 is a sixth of all that is kept.

    Args:
        adapted: the language model in PEFT's wrapper, its LoRA without biases; changed in place.
    """
    from peft.tuners.lora import LoraLayer

    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            layer.cast_input_dtype_enabled = False
            for factor in (*layer.lora_A.values(), *layer.lora_B.values()):
                assert type(factor) is nn.Linear
                assert factor.bias is None
                # The layer keeps its parameters and hooks; only its `forward` is another one.
                factor.__class__ = LowRankFactor
    return adapted
