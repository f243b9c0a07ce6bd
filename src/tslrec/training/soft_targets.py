"""What a teacher thinks of each training target, beside a module that trains: items and their shares, by place.

Shapes: N interactions of the data set, X training targets, K items of a target, T targets of a step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SoftTargets(nn.Module):
    """Looks up the soft targets of a step. A module, so that it goes to the device with the one that it is part of.

    Args:
        items_XK: int32, item ids, distinct within a row, of each training target in the flat order of interactions.
        shares_XK: their shares, which add up to 1.
        is_target_N: bool, which interactions are training targets, X in all.
        weight: what the shares count for; the target item keeps the rest.
    """

    items_XK: Tensor
    shares_XK: Tensor
    rows_N: Tensor

    def __init__(self, items_XK: Tensor, shares_XK: Tensor, is_target_N: Tensor, weight: float) -> None:
        super().__init__()
        self.weight = weight
        # No part of the weights: a checkpoint would hold them all.
        self.register_buffer("items_XK", items_XK, persistent=False)
        self.register_buffer("shares_XK", shares_XK, persistent=False)
        self.register_buffer("rows_N", (is_target_N.cumsum(0) - 1).clamp(min=0), persistent=False)

    def forward(self, places_T: Tensor) -> tuple[Tensor, Tensor]:
        """The items, int64 `[T, K]`, and their shares `[T, K]`.

        Args:
            places_T: of the targets in the flat array; those of other interactions give shares that mean nothing.
        """
        rows_T = self.rows_N[places_T]
        return self.items_XK[rows_T].to(torch.int64), self.shares_XK[rows_T]
