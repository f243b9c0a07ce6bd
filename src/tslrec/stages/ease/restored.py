"""EASE's recommender: a user's vector is made of the items of the whole history, in no order.

Shapes: B sequences, L positions, I items (row 0 of a table is padding).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tslrec.data.interactions import PADDING
from tslrec.stages.fusion_inputs import Sources, check_item_map
from tslrec.stages.restored import Restored
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_tensors

WEIGHTS = "item_weights.safetensors"
"""The stage's result: `weights` `[I + 1, I + 1]`."""


def restore(sources: Sources, folder: Path) -> Restored:
    """The recommender of the stage `ease`.

    Args:
        sources: the run's configuration, its data set and earlier results.
        folder: the stage's artifact.

    Raises:
        UserError: if the file is of other items, or has other arrays.
    """
    path = folder / WEIGHTS
    check_item_map(path, sources)
    tables = load_tensors(path)
    rows = sources.interactions.num_items + 1
    if set(tables) != {"weights"} or tuple(tables["weights"].shape) != (rows, rows):
        raise UserError(f"{path}: no item weights of {rows} rows (padding included); delete {folder} to compute them")
    return recommender(tables["weights"], int(sources.interactions.lengths.max()))


def recommender(weights_II: Tensor, longest: int) -> Restored:
    """The recommender of some item weights.

    Args:
        weights_II: see `WEIGHTS`, `[I + 1, I + 1]`.
        longest: items of the longest history, so that no history of the data set is cut.
    """
    return Restored(lambda items_BL, lengths_B: had(items_BL, len(weights_II)), weights_II, longest)


def had(items_BL: Tensor, width: int) -> Tensor:
    """Which items each history has, float32 `[B, I + 1]`, 1 or 0; padding is none.

    Args:
        items_BL: item ids, padded with 0.
        width: I + 1.
    """
    had_BI = torch.zeros(len(items_BL), width).scatter_(1, items_BL, 1.0)
    had_BI[:, PADDING] = 0
    return had_BI
