"""The numbers by which the item embeddings of a catalogue are standardised before a language model sees them.

Shapes: I items (row 0 is padding), R rows, D hidden size of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tslrec.streaming import Table, slices


@dataclass(frozen=True)
class Scaling:
    """Centres each dimension and scales all of them by one number, which keeps the table's geometry.

    A model goes with the numbers of the catalogue that it was trained on, also where items were added to it since.

    Attributes:
        mean_D: float32, over the items.
        deviation: one number, over all dimensions.
    """

    mean_D: Tensor
    deviation: float

    @classmethod
    def of(cls, item_embeddings_ID: Table) -> Scaling:
        """Measures a table; padding takes no part."""
        items, size = len(item_embeddings_ID) - 1, item_embeddings_ID.shape[1]
        total_D, squares = torch.zeros(size, dtype=torch.float64), 0.0
        for each in slices(items + 1, start=1):
            total_D += item_embeddings_ID[each].double().sum(dim=0)
        mean_D = total_D / items
        for each in slices(items + 1, start=1):
            squares += float((item_embeddings_ID[each].double() - mean_D).square().sum())
        return cls(mean_D.float(), max((squares / (items * size)) ** 0.5, 1e-12))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scaling:
        """Reads what `as_json` gave."""
        return cls(torch.tensor(value["mean"], dtype=torch.float32), float(value["deviation"]))

    def as_json(self) -> dict[str, Any]:
        """Numbers that are read back to the last bit."""
        return {"mean": self.mean_D.tolist(), "deviation": self.deviation}

    def __call__(self, items_RD: Tensor) -> Tensor:
        """Standardised rows, float32."""
        return (items_RD.float() - self.mean_D) / self.deviation
