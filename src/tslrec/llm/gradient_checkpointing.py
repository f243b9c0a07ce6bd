"""Gradient checkpointing (Chen et al. 2016): a layer keeps its input only and recomputes the rest in the backward pass.

It costs a second forward pass of each layer and saves most of the memory for activations; the gradients stay the same.

Shapes: R rows, T tokens of a row, H hidden size of the language model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def checkpoint_layers(base: PreTrainedModel) -> None:
    """Turns on gradient checkpointing in every layer of a language model, in place.

    It takes effect while the model is in training mode and gradients are enabled.

    Args:
        base: the language model; its decoder layers are in `base.layers`.

    Raises:
        UserError: if the model has no list of layers.
    """
    layers = getattr(base, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise UserError(f"llm.gradient_checkpointing: {type(base).__name__} shows no layers; set it to false")
    for layer in layers:
        # Replaces `forward` and not `__call__`, so that the hooks of the layer run once and not again when it is
        # recomputed.
        layer.forward = checkpointed(layer)


def checkpointed(layer: nn.Module) -> Callable[..., Tensor]:
    """A replacement for a layer's `forward`, with the same arguments and results.

    Args:
        layer: maps hidden states `[R, T, H]` to hidden states `[R, T, H]`.

    Returns:
        The replacement. It raises a ValueError if a training pass comes with a key-value cache, because recomputing
        the layer would append the same keys and values a second time.
    """
    forward = layer.forward

    def run(hidden_RTH: Tensor, **settings: Any) -> Tensor:
        if not (layer.training and torch.is_grad_enabled()):
            result: Tensor = forward(hidden_RTH, **settings)
            return result
        if settings.get("cache") is not None:
            raise ValueError("gradient checkpointing: a training pass cannot use a key-value cache")
        recomputed: Tensor = checkpoint(forward, hidden_RTH, use_reentrant=False, **settings)
        return recomputed

    return run
