"""Standardises the backbone's item embeddings before a language model reads them.

Shapes: I items (row 0 is padding), R rows, D hidden size of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tslrec.system.row_tables import Table, slices


@dataclass(frozen=True)
class Scaling:
    """Subtracts the mean of each dimension and divides all dimensions by one number.

    One divisor for all dimensions keeps the geometry of the table. A trained model always uses the numbers of the
    catalogue that it was trained on, even after items were added.

    Attributes:
        mean_D: float32, the mean of each dimension over the items.
        deviation: standard deviation over all items and dimensions.
    """

    mean_D: Tensor
    deviation: float

    @classmethod
    def of(cls, item_embeddings_ID: Table) -> Scaling:
        """Measures a table, read by slices of rows; the padding row is left out.

        Args:
            item_embeddings_ID: `[I + 1, D]`, with at least one item.
        """
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
        """Reads what `as_json` wrote."""
        return cls(torch.tensor(value["mean"], dtype=torch.float32), float(value["deviation"]))

    def as_json(self) -> dict[str, Any]:
        """The numbers for a JSON file, exact to the last bit."""
        return {"mean": self.mean_D.tolist(), "deviation": self.deviation}

    def __call__(self, items_RD: Tensor) -> Tensor:
        """Standardises rows `[R, D]`; the result is float32."""
        return (items_RD.float() - self.mean_D) / self.deviation


def standardise_items(item_embeddings_ID: Tensor) -> Tensor:
    """Standardises a whole table by its own numbers (see `Scaling`).

    Args:
        item_embeddings_ID: `[I + 1, D]`.

    Returns:
        Float32 `[I + 1, D]`; the padding row is zero.
    """
    items_ID = item_embeddings_ID.detach()
    if len(items_ID) == 1:
        return torch.zeros(items_ID.shape, device=items_ID.device)
    return F.pad(Scaling.of(items_ID)(items_ID[1:]), (0, 0, 1, 0))
