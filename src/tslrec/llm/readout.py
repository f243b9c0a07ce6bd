"""Which hidden state of the language model is read as the knowledge of an item.

Shapes: B examples, R rows, T tokens of a row, H hidden size of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tslrec.llm.packing import PackedExamples
from tslrec.settings.preference_sft import KnowledgeConfig
from tslrec.system.errors import UserError

LAST = "last"
"""Value of `layer`: the last layer, after the final norm."""

MEAN = "mean"
"""Value of `layer`: the mean over all layers."""

RESPONSE = "response"
"""Value of `position`: the last token of the prompt."""


@dataclass(frozen=True)
class Readout:
    """A layer and a position of the language model; the default is the paper's h^u (Eq. 1).

    Attributes:
        layer: `last`, after the final norm; `mean` of all layers; or a layer's number, from 1.
        position: `response`, the last token of the prompt; or `item`, the last token of the last item: its only one,
            or the end of its title where titles are read.
    """

    layer: str = LAST
    position: str = RESPONSE

    @classmethod
    def of(cls, config: KnowledgeConfig) -> Readout:
        """The readout that the configuration asks for."""
        return cls(config.layer, config.position)

    @property
    def every_layer(self) -> bool:
        """Whether it needs the hidden states of all layers, not just of the last."""
        return self.layer != LAST

    def __call__(self, states: Sequence[Tensor], examples: PackedExamples, num_response: int) -> Tensor:
        """Reads one vector per example.

        Args:
            states: hidden states `[R, T, H]` of the embeddings and of every layer; the last layer's alone are enough
                where `every_layer` is False.
            examples: the examples that the states belong to.
            num_response: tokens of the response.

        Returns:
            `[B, H]`.

        Raises:
            UserError: if the model has no such layer.
        """
        positions_B = examples.last_B if self.position == RESPONSE else examples.last_B - num_response
        read = layers_read(states, self.layer)
        return torch.stack([state_RTH.flatten(0, 1)[positions_B] for state_RTH in read]).mean(dim=0)


def layers_read(states: Sequence[Tensor], layer: str, key: str = "knowledge.layer") -> Sequence[Tensor]:
    """The hidden states of the layers that are averaged.

    Args:
        states: of the embeddings and of every layer; the last layer's alone are enough for `last`.
        layer: `last`, `mean` or a number, as `Readout.layer`.
        key: the setting that names it, for the message.

    Raises:
        UserError: if the model has no such layer.
    """
    if layer == LAST:
        return states[-1:]
    layers = states[1:]
    if layer == MEAN:
        return layers
    if int(layer) > len(layers):
        raise UserError(f"{key}={layer}: the language model has {len(layers)}; name one of them")
    return [layers[int(layer) - 1]]


PAPER_READOUT = Readout()
"""The paper's readout: h^u of Eq. 1, the last hidden state at the last token of the prompt."""
