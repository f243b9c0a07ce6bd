"""How far a member's scores of a user spread over the items.

Shapes: B users, I items (row 0 of a table is padding), E size of a user vector, W items of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tslrec.stages.ensemble.products import Product

BLOCK = 2**16
"""Items whose rows are in float64 at a time."""

NO_SPREAD = 1e-12
"""Scores whose variance is a smaller share of their mean square are the same number, but for rounding."""


class Spread:
    """The standard deviation of each user's scores over all items, padding excluded.

    A user's scores are `t_i · u` for the rows `t_i` of the table. Their mean is `mean(t) · u`, and so their variance is
    the mean of `((t_i - mean(t)) · u)²`, which is `uᵀ C u` with the covariance `C = Cov(t)` `[E, E]` of the rows. It is
    computed once. Where the table has no more rows than columns, it would cost more than the scores themselves, which
    are then computed for each user.

    Args:
        product: of user vectors with the table that scores items.
    """

    def __init__(self, product: Product) -> None:
        self.product = product
        items_IE = product.items_IE
        self.mean_E = torch.zeros(items_IE.shape[1], dtype=torch.float64)
        for rows_WE in items_IE.split(BLOCK):
            self.mean_E += rows_WE.double().sum(dim=0)
        self.mean_E /= len(items_IE)
        self.items_IE = items_IE
        self.covariance_EE = None if product.is_wide else self.covariance()

    def covariance(self) -> Tensor:
        """`Cov(t)`, float64 `[E, E]`."""
        sum_EE = torch.zeros(len(self.mean_E), len(self.mean_E), dtype=torch.float64)
        for rows_WE in self.items_IE.split(BLOCK):
            centred_WE = rows_WE.double() - self.mean_E
            sum_EE.addmm_(centred_WE.T, centred_WE)
        return sum_EE / len(self.items_IE)

    def variance(self, user_BE: Tensor) -> Tensor:
        """The variance of each user's scores, float64 `[B]`."""
        if self.covariance_EE is not None:
            return ((user_BE @ self.covariance_EE) * user_BE).sum(dim=1)
        return self.product(user_BE.to(self.items_IE.dtype)).double().var(dim=1, correction=0)

    def inverse(self, user_BE: Tensor) -> Tensor:
        """One by the standard deviation of each user's scores, float64 `[B]`.

        It is 0 for a user whose scores are all the same: they say nothing of the items.

        Args:
            user_BE: user vectors.
        """
        user_BE = user_BE.double()
        variance_B = self.variance(user_BE)
        square_B = variance_B + (user_BE @ self.mean_E).square()
        return torch.where(variance_B > NO_SPREAD * square_B, variance_B.rsqrt(), 0.0)
