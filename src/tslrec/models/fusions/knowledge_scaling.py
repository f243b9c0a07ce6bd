"""Scales knowledge embeddings before a fusion projects them.

Shapes: I items (row 0 of a table is padding), R items of a slice, H size of a knowledge embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tslrec.system.row_tables import Table, slices


@dataclass(frozen=True)
class KnowledgeScaling:
    """Standardises each dimension by the numbers of one catalogue; a model that trains on keeps those of its first one.

    Attributes:
        mean_H: float64, the mean of each dimension over the items.
        scale_H: float64, one over the standard deviation; 0 of a constant dimension.
    """

    mean_H: Tensor
    scale_H: Tensor

    @classmethod
    def of(cls, knowledge_IH: Table) -> KnowledgeScaling:
        """Measures a table `[I + 1, H]`, read slice by slice; padding is not counted.

        Raises:
            ValueError: if a value is not finite.
        """
        rows, size = len(knowledge_IH), knowledge_IH.shape[1]
        mean_H, squares_H = mean(knowledge_IH), torch.zeros(size, dtype=torch.float64)
        for part in slices(rows, start=1):
            squares_H += (knowledge_IH[part].double() - mean_H).square().sum(dim=0)
        deviation_H = (squares_H / (rows - 1)).sqrt()
        # Rounding errors give even a constant dimension a deviation that is not exactly 0.
        constant_H = deviation_H <= mean_H.abs() * 1e-12
        return cls(mean_H, torch.where(constant_H, torch.zeros_like(deviation_H), 1 / deviation_H.clamp_min(1e-30)))

    def __call__(self, knowledge_IH: Table) -> Tensor:
        """A new standardised table, float32 `[I + 1, H]`; padding becomes zero, and so do constant dimensions."""
        standardised_IH = torch.zeros(len(knowledge_IH), knowledge_IH.shape[1])
        for part in slices(len(knowledge_IH), start=1):
            standardised_IH[part] = ((knowledge_IH[part].double() - self.mean_H) * self.scale_H).float()
        return standardised_IH


def standardise(knowledge_IH: Table) -> Tensor:
    """Standardises each dimension to mean 0 and standard deviation 1 over the items (see `KnowledgeScaling`).

    Args:
        knowledge_IH: knowledge embeddings, `[I + 1, H]`, read slice by slice.

    Returns:
        A new table, float32 `[I + 1, H]`.

    Raises:
        ValueError: if a value is not finite.
    """
    return KnowledgeScaling.of(knowledge_IH)(knowledge_IH)


def mean(knowledge_IH: Table) -> Tensor:
    """Mean of each dimension over the items, float64 `[H]`; padding is not counted.

    Raises:
        ValueError: if a value is not finite.
    """
    total_H = torch.zeros(knowledge_IH.shape[1], dtype=torch.float64)
    for part in slices(len(knowledge_IH), start=1):
        items_RH = knowledge_IH[part].double()
        if not torch.isfinite(items_RH).all():
            raise ValueError("knowledge embeddings hold values that are not finite")
        total_H += items_RH.sum(dim=0)
    return total_H / (len(knowledge_IH) - 1)
