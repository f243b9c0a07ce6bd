"""The random Llama with the linear layers of its blocks in 8 or 4 bits, as transformers would load it.

The layers are those that `tslrec.llm.loading.quantised` asks transformers for: LLM.int8, or NF4 with quantised scales.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gpu_parts.random_llm import random_base
from tslrec.llm.shape import Shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def quantised_base(shape: Shape, bits: int, device: torch.device) -> PreTrainedModel:
    """Makes the model in bfloat16 on the card and quantises one layer after the other.

    Args:
        shape: its sizes.
        bits: 8 or 4.
        device: the card.
    """
    base = random_base(shape, device)
    for name, layer in list(base.named_modules()):
        if isinstance(layer, nn.Linear):
            parent, _, last = name.rpartition(".")
            setattr(base.get_submodule(parent), last, quantised_layer(layer, bits))
    return base


def quantised_layer(layer: nn.Linear, bits: int) -> nn.Module:
    """A bitsandbytes layer with the weights of a linear layer without bias, on the same card."""
    import bitsandbytes

    device = layer.weight.device
    sizes = (layer.in_features, layer.out_features)
    # bitsandbytes takes 8-bit weights from the CPU only, so each goes there and back.
    weights = layer.weight.data.cpu() if bits == 8 else layer.weight.data
    made: Any
    if bits == 8:
        made = bitsandbytes.nn.Linear8bitLt(*sizes, bias=False, has_fp16_weights=False, device="meta")
        made.weight = bitsandbytes.nn.Int8Params(weights, requires_grad=False, has_fp16_weights=False).to(device)
    else:
        made = bitsandbytes.nn.Linear4bit(
            *sizes,
            bias=False,
            compute_dtype=torch.bfloat16,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        made.weight = bitsandbytes.nn.Params4bit(
            weights, requires_grad=False, compress_statistics=True, quant_type="nf4", module=made
        ).to(device)
    result: nn.Module = made
    return result
