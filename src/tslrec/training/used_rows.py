"""The rows of the item table that an optimizer step uses: of a large table it computes only these.

Shapes: B rows of a batch, L positions, D hidden size, I items (row 0 of a table is padding), R distinct items of a
step, S negatives of a step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tslrec.data.interactions import PADDING
from tslrec.data.sequence_batch import TrainingBatch
from tslrec.training.sampled_softmax import Negatives


def placed(batch: TrainingBatch, negatives: Negatives) -> tuple[Tensor, TrainingBatch, Negatives]:
    """Renumbers the items of a step, so that it computes only the rows of the item table that it uses.

    Of a table of millions of rows only these are then computed and get a gradient.

    Returns:
        The distinct item ids of the step, rising from 0 (padding), `[R]`; the step and the negatives with indices into
        them in the place of item ids.
    """
    parts = batch.parts
    ids = [negatives.items_S, *(part.items_BL for part in parts), *(part.targets for part in parts)]
    rows_R, (negatives_S, *places) = compact(ids)
    placed = tuple(
        part._replace(items_BL=items_BL, targets=targets)
        for part, items_BL, targets in zip(parts, places[: len(parts)], places[len(parts) :], strict=True)
    )
    return rows_R, batch._replace(parts=placed), negatives._replace(items_S=negatives_S)


def narrowed(table_ID: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Looks up the rows of the table that some inputs use, once for all micro-batches of a step.

    Every look-up in a table has a gradient as large as the table. This way there is one such gradient per step; those
    of the micro-batches are only as large as the rows that the step uses.

    Args:
        table_ID: the item table; row 0 is padding, which stays row 0.
        inputs: item ids, each `[B, L]`.

    Returns:
        The distinct rows, `[R, D]`, and the inputs with row numbers of it in the place of item ids.
    """
    used, places = compact(inputs)
    return F.embedding(used, table_ID, padding_idx=PADDING), places


def compact(ids: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The distinct ids of some tensors, rising from 0, and the tensors with indices into them in the place of ids."""
    flat = torch.cat([ids[0].new_zeros(1), *(each.flatten() for each in ids)])
    used, places = torch.unique(flat, return_inverse=True)
    parts = places[1:].split([each.numel() for each in ids])
    return used, [part.view_as(each) for part, each in zip(parts, ids, strict=True)]
