"""How knowledge is scaled before a fusion projects it: frozen tables in, tables of the same rows out.

Shapes: I items (row 0 is padding), H size of the knowledge, C principal components.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tslrec.errors import UserError
from tslrec.streaming import Table, slices

LEAST_VARIANCE = 1e-10
"""Of a principal component that is scaled up, as a part of the largest one's; what varies less is rounding errors."""


def standardise(knowledge_IH: Table) -> Tensor:
    """Mean 0 and standard deviation 1 per dimension over the items; padding becomes zeros, as do constant dimensions.

    Raises:
        ValueError: if a value is not finite.
    """
    rows, size = len(knowledge_IH), knowledge_IH.shape[1]
    mean_H, squares_H = mean(knowledge_IH), torch.zeros(size, dtype=torch.float64)
    for each in slices(rows, start=1):
        squares_H += (knowledge_IH[each].double() - mean_H).square().sum(dim=0)
    deviation_H = (squares_H / (rows - 1)).sqrt()
    # Sums of equal numbers leave a deviation of rounding errors.
    constant_H = deviation_H <= mean_H.abs() * 1e-12
    scale_H = torch.where(constant_H, torch.zeros_like(deviation_H), 1 / deviation_H.clamp_min(1e-30))
    standardised_IH = torch.zeros(rows, size)
    for each in slices(rows, start=1):
        standardised_IH[each] = ((knowledge_IH[each].double() - mean_H) * scale_H).float()
    return standardised_IH


def whiten(knowledge_IH: Table, num_components: int) -> Tensor:
    """The leading principal components, float32 `[I + 1, C]`, each of mean 0 and standard deviation 1 over the items.

    Components that do not vary, and padding, become zeros.

    Raises:
        ValueError: if a value is not finite.
        UserError: if there are fewer components.
    """
    rows, size = len(knowledge_IH), knowledge_IH.shape[1]
    if not 1 <= num_components <= size:
        raise UserError(
            f"fusion.whitened_size={num_components}: the knowledge has {size} components; name 1 to {size}, or null"
        )
    mean_H, products_HH = mean(knowledge_IH), torch.zeros(size, size, dtype=torch.float64)
    for each in slices(rows, start=1):
        centred_RH = knowledge_IH[each].double() - mean_H
        products_HH += centred_RH.T @ centred_RH
    variances_H, directions_HH = torch.linalg.eigh(products_HH / (rows - 1))
    # In rising order.
    variances_C, directions_HC = variances_H.flip(0)[:num_components], directions_HH.flip(1)[:, :num_components]
    varies_C = variances_C > LEAST_VARIANCE * variances_C[0].clamp_min(0)
    scale_C = torch.where(varies_C, variances_C.clamp_min(1e-300).rsqrt(), torch.zeros_like(variances_C))
    whitened_IC = torch.zeros(rows, num_components)
    for each in slices(rows, start=1):
        whitened_IC[each] = ((knowledge_IH[each].double() - mean_H) @ directions_HC * scale_C).float()
    return whitened_IC


def mean(knowledge_IH: Table) -> Tensor:
    """Of each dimension over the items, float64 `[H]`.

    Raises:
        ValueError: if a value is not finite.
    """
    total_H = torch.zeros(knowledge_IH.shape[1], dtype=torch.float64)
    for each in slices(len(knowledge_IH), start=1):
        items_RH = knowledge_IH[each].double()
        if not torch.isfinite(items_RH).all():
            raise ValueError("knowledge embeddings hold values that are not finite")
        total_H += items_RH.sum(dim=0)
    return total_H / (len(knowledge_IH) - 1)
