"""Which items of a training row are masked, and which of them the loss counts.

Shapes: B rows, S items of all rows, one row after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.data.windows import index_in_group

MASK_STREAM = 2
"""Number of the random stream that draws the masks; it makes the draw independent of the shuffling."""


@dataclass(frozen=True)
class Masking:
    """Masks the last item of every row of a step, or each item at random, as RecBole does since its issue 1522.

    Attributes:
        ft_ratio: probability that a step masks the last item of every row, as at a test.
        mask_ratio: otherwise, the probability that an item is masked.
        most_counted: masked items that count, at most, of each row: the last ones. None: all.
        counts_first: whether the first item of a row counts where it is masked.
    """

    ft_ratio: float
    mask_ratio: float
    most_counted: int | None = None
    counts_first: bool = True

    def places(
        self, lengths_B: NDArray[np.int64], draw: np.random.Generator
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Draws the masks of a step.

        A step in which no masked item would count masks the last item of every row, since its mean loss is over at
        least one target.

        Args:
            lengths_B: number of items of each row; at least 2 unless the first item counts.
            draw: of the step.

        Returns:
            Whether each item is masked, and whether it is a target, both `[S]`.
        """
        last_S = index_in_group(lengths_B) == np.repeat(lengths_B, lengths_B) - 1
        masked_S = last_S if draw.random() < self.ft_ratio else draw.random(len(last_S)) < self.mask_ratio
        counted_S = self.counted(masked_S, lengths_B)
        return (masked_S, counted_S) if counted_S.any() else (last_S, self.counted(last_S, lengths_B))

    def counted(self, masked_S: NDArray[np.bool_], lengths_B: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of the masked items are targets, `[S]`."""
        counted_S = masked_S
        if self.most_counted is not None:
            so_far_S = np.cumsum(masked_S)
            of_row_B = so_far_S[np.cumsum(lengths_B) - 1]
            counted_S = counted_S & (np.repeat(of_row_B, lengths_B) - so_far_S < self.most_counted)
        return counted_S if self.counts_first else counted_S & (index_in_group(lengths_B) > 0)

    def targets_per_row(self, mean_length: float) -> float:
        """Targets of a row to expect, where no row has too many."""
        return self.ft_ratio + (1 - self.ft_ratio) * self.mask_ratio * mean_length
