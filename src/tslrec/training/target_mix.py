"""Targets of a softmax that are a distribution over items: a part of it on the item itself, on some others, on all.

With log-softmax the loss of such a target is log Z minus the mean score of its items, weighted by their shares, so that
all that changes is what stands in the place of the target's score and row.

Shapes: B targets, C targets of a chunk, K items that have a share of a target, I items (padding has no column), D size
of an item vector.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TargetMix(NamedTuple):
    """What the distribution of each target is made of. The shares of a target add up to 1.

    Attributes:
        kept: the share of the target item itself.
        uniform: the share that all items have together, each of them the same.
        items_BK: int64, the ids of further items, distinct within a row; 0 is an empty place. None: there are none.
        shares_BK: their shares; 0 in an empty place.
    """

    kept: float
    uniform: float = 0.0
    items_BK: Tensor | None = None
    shares_BK: Tensor | None = None

    def to(self, dtype: torch.dtype) -> TargetMix:
        """The same with shares of another type."""
        return self if self.shares_BK is None else self._replace(shares_BK=self.shares_BK.to(dtype))

    def bag(self, chunk: slice) -> Bag | None:
        """The further items of some of the targets; None if there are none."""
        if self.items_BK is None or self.shares_BK is None:
            return None
        return Bag((self.items_BK[chunk] - 1).clamp_(min=0), self.shares_BK[chunk])


class Bag(NamedTuple):
    """Items that have a share of some targets.

    Attributes:
        columns_CK: int64, the items' columns in a chunk of logits.
        shares_CK: their shares.
    """

    columns_CK: Tensor
    shares_CK: Tensor

    def mean_logits(self, logits_CI: Tensor) -> Tensor:
        """The sum of the items' logits, each times its share, `[C]`."""
        return (logits_CI.gather(1, self.columns_CK) * self.shares_CK).sum(dim=1)

    def subtract_from(self, exponentials_CI: Tensor, sums_C: Tensor) -> None:
        """Turns exponentials into the gradient of the logits, times the row's sum, as far as these items go.

        Args:
            exponentials_CI: changed in place.
            sums_C: of each row's exponentials.
        """
        scaled_CK = self.shares_CK * -sums_C.to(self.shares_CK.dtype)[:, None]
        exponentials_CI.scatter_add_(1, self.columns_CK, scaled_CK)


def target_mix(
    label_smoothing: float, weight: float = 0.0, items_BK: Tensor | None = None, shares_BK: Tensor | None = None
) -> TargetMix | None:
    """The targets of a training step; None where each is its item and nothing else.

    Args:
        label_smoothing: what the uniform distribution over all items counts for; the rest keeps what is left.
        weight: of that rest, what the soft targets count for; the target item keeps what is left.
        items_BK: items of the soft targets, as `TargetMix` has them.
        shares_BK: their shares, which add up to 1.
    """
    if label_smoothing == 0 and items_BK is None:
        return None
    rest = 1 - label_smoothing
    soft_BK = None if shares_BK is None else shares_BK * (rest * weight)
    return TargetMix(rest * (1 - weight), label_smoothing, items_BK, soft_BK)
