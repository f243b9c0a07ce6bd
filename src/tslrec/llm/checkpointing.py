"""Gradient checkpointing (Chen et al. 2016): activations are computed again where the backward pass needs them.

Transformers' own drops the cache of keys and values with no more than a warning, and the shared prefix with it. Here a
layer gets the part of the cache that is its own as an argument, and gives what it adds to it as a result, so that it
can be run twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tslrec.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class LayerCache:
    """The keys and values of one layer, each `[R, G, T, E]`: what attention asks of transformers' cache."""

    def __init__(self, *known: Tensor) -> None:
        self.known = known

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, ...]:
        """All keys and values so far."""
        new = keys, values
        if self.known:
            new = torch.cat([self.known[0], keys], dim=-2), torch.cat([self.known[1], values], dim=-2)
        self.known = new
        return self.known


def checkpoint_layers(base: PreTrainedModel) -> None:
    """Lets each layer keep its input only, while it is trained.

    Raises:
        UserError: if the model does not show its layers.
    """
    layers = getattr(base, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise UserError(f"llm.gradient_checkpointing: {type(base).__name__} shows no layers; set it to false")
    for place, layer in enumerate(layers):
        # On the instance, so that hooks on the layer run once.
        layer.forward = checkpointed(layer, place)


def checkpointed(layer: nn.Module, place: int) -> Callable[..., Tensor]:
    """The forward pass of a layer.

    Args:
        layer: whose class computes it.
        place: among the layers, from 0.
    """
    forward = layer.forward

    def run(hidden_RTH: Tensor, *, cache: Any = None, **settings: Any) -> Tensor:
        if not (layer.training and torch.is_grad_enabled()):
            result: Tensor = forward(hidden_RTH, cache=cache, **settings)
            return result
        known: tuple[Tensor, ...] = ()
        if cache is not None and cache.get_seq_length(place) > 0:
            known = cache.layers[place].keys, cache.layers[place].values

        def inner(hidden_RTH: Tensor, *known: Tensor) -> tuple[Tensor, ...]:
            if cache is None:
                return (forward(hidden_RTH, cache=None, **settings),)
            own = LayerCache(*known)
            computed: Tensor = forward(hidden_RTH, cache=own, **settings)
            # What follows a prefix is read by nobody else, and would be kept.
            return (computed,) if known else (computed, *own.known)

        computed_RTH, *added = checkpoint(inner, hidden_RTH, *known, use_reentrant=False)
        if added:
            cache.update(*added, place)
        return computed_RTH

    return run
