"""Where in a language model the knowledge of an item is read.

Shapes: B examples, R rows, T tokens of a row, H hidden size of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tslrec.config import KnowledgeConfig
from tslrec.errors import UserError
from tslrec.llm.packing import PackedExamples

LAST, MEAN = "last", "mean"
RESPONSE = "response"


@dataclass(frozen=True)
class Reading:
    """A layer and a position; the paper's h^u unless they say otherwise.

    Attributes:
        layer: `last`, after the final norm; `mean` of all layers; or a layer's number, from 1.
        position: `response`, the last token; or `item`, that of the last item.
    """

    layer: str = LAST
    position: str = RESPONSE

    @classmethod
    def of(cls, config: KnowledgeConfig) -> Reading:
        return cls(config.layer, config.position)

    @property
    def every_layer(self) -> bool:
        """Whether states of other layers than the last are wanted."""
        return self.layer != LAST

    def __call__(self, states: Sequence[Tensor], examples: PackedExamples, num_response: int) -> Tensor:
        """What is read of each example, `[B, H]`.

        Args:
            states: `[R, T, H]` each, of the embeddings and of every layer; the last alone where no other is wanted.
            examples: what they are of.
            num_response: tokens of the response.

        Raises:
            UserError: if the model has no such layer.
        """
        places_B = examples.last_B if self.position == RESPONSE else examples.last_B - num_response
        return torch.stack([state_RTH.flatten(0, 1)[places_B] for state_RTH in self.wanted(states)]).mean(dim=0)

    def wanted(self, states: Sequence[Tensor]) -> Sequence[Tensor]:
        """The states of the layers that count."""
        if self.layer == LAST:
            return states[-1:]
        layers = states[1:]
        if self.layer == MEAN:
            return layers
        if int(self.layer) > len(layers):
            raise UserError(f"knowledge.layer={self.layer}: the language model has {len(layers)}; name one of them")
        return [layers[int(self.layer) - 1]]
