"""What the data module hands to a next-item module: padded sequences, and the micro-batches of an optimizer step.

Shapes: B sequences, L positions, S (row, item) pairs of histories.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from tslrec.data.packing import Packing


class SequenceBatch(NamedTuple):
    """Sequences that run through the model together.

    Attributes:
        items_BL: int64, item ids, padded with 0 on the right.
        lengths_B: int64, number of items of each sequence, 1 or more.
        users_B: int64, user ids.
        targets: int64; `[B]`, the item after each sequence, or `[B, L]`, the item after each position; 0 for a target
            that does not count.
        seen_rows: int64 `[S]`, not decreasing: with `seen_items` the pairs of (row of the batch, item) of each user's
            whole history before the target. None in training.
        seen_items: int64 `[S]`.
        packing: given where a row holds several sequences; `lengths_B` and `users_B` then have no meaning.
        places: int64, as `targets`: where each target stands in the flat array of interactions; 0 for a target that
            does not count. None where the training needs none.
    """

    items_BL: Tensor
    lengths_B: Tensor
    users_B: Tensor
    targets: Tensor
    seen_rows: Tensor | None = None
    seen_items: Tensor | None = None
    packing: Packing | None = None
    places: Tensor | None = None

    def cut(self, count: int) -> list[SequenceBatch]:
        """Splits a training batch of prefixes into `count` parts of about equal size, in order.

        Parts are empty where there are fewer prefixes than parts.
        """
        tensors = (self.items_BL, self.lengths_B, self.users_B, self.targets)
        parts = [SequenceBatch(*part) for part in zip(*(each.tensor_split(count) for each in tensors), strict=True)]
        if self.places is None:
            return parts
        places = self.places.tensor_split(count)
        return [part._replace(places=own) for part, own in zip(parts, places, strict=True)]


class TrainingBatch(NamedTuple):
    """The data of one optimizer step.

    Attributes:
        parts: this rank's micro-batches, run one after the other.
        num_targets: targets of the step that count, over all ranks.
    """

    parts: tuple[SequenceBatch, ...]
    num_targets: int
