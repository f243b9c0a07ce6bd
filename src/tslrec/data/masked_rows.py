"""The training data of a backbone that tells masked items: whole training parts, masked anew in each optimizer step.

Shapes: B rows, S items of all rows, one row after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tslrec.data.batching import RandomBatches, rank_share
from tslrec.data.interactions import PADDING, Interactions
from tslrec.data.masking import MASK_STREAM, Masking
from tslrec.data.packed_batch import packed_batch
from tslrec.data.sequence_batch import TrainingBatch
from tslrec.data.windows import all_rows, index_in_group


class NumberedStep(NamedTuple):
    """The instances of an optimizer step.

    Attributes:
        number: of the step, counted from the first one of the training.
        instances: their indices, over all ranks.
    """

    number: int
    instances: NDArray[np.int64]


class NumberedBatches(RandomBatches):
    """The batches of `RandomBatches`, each with the number of its step, which a resumed training continues."""

    def __iter__(self) -> Iterator[NumberedStep]:  # type: ignore[override]
        number = self.epoch * self.batches_per_pass + self.position
        for instances in super().__iter__():
            yield NumberedStep(number, instances)
            number += 1


class MaskedRows:
    """Makes the tensors of optimizer steps: rows with masked items, and the masked items as targets.

    The masks of a step depend on the seed and on the number of the step alone: every rank draws those of all ranks, and
    a resumed training draws what an uninterrupted one does.

    Args:
        interactions: the data set.
        masking: which items are masked.
        max_len: the longest row, in items.
        seed: determines the masks.
    """

    def __init__(self, interactions: Interactions, masking: Masking, *, max_len: int, seed: int) -> None:
        self.interactions = interactions
        self.masking = masking
        self.max_len = max_len
        self.seed = seed
        self.rows = all_rows(interactions, max_len)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def rows_per_step(self, targets: int) -> int:
        """Rows that hold about so many targets."""
        mean_length = float(self.rows.lengths.mean()) if len(self) else 0.0
        return max(1, round(targets / max(1.0, self.masking.targets_per_row(mean_length))))

    def collate(self, step: NumberedStep) -> TrainingBatch:
        """This rank's rows of one step as a single micro-batch, packed; a masked item is 0.

        Args:
            step: indices of rows, over all ranks.
        """
        lengths_B = self.rows.lengths[step.instances]
        draw = np.random.default_rng([self.seed, MASK_STREAM, step.number])
        masked_S, counted_S = self.masking.places(lengths_B, draw)
        own, takes_part = rank_share(np.arange(len(lengths_B)))
        own_lengths_B = lengths_B[own]
        within_S = index_in_group(own_lengths_B)
        begins_B = np.cumsum(lengths_B) - lengths_B
        places_S = np.repeat(begins_B[own], own_lengths_B) + within_S
        items_S = self.interactions.items[
            np.repeat(self.rows.starts[step.instances[own]], own_lengths_B) + within_S
        ].astype(np.int64)
        targets_S = np.where(counted_S[places_S], items_S, 0) * takes_part
        shown_S = np.where(masked_S[places_S], PADDING, items_S)
        part = packed_batch(own_lengths_B, shown_S, targets_S, self.max_len)
        return TrainingBatch((part,), int(counted_S.sum()))
