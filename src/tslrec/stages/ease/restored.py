"""EASE's recommender: a user's vector is made of the items of the whole history, in no order.

Shapes: B sequences, L positions, I items (row 0 of a table is padding), R rank, E size of a user vector.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tslrec.data.interactions import PADDING
from tslrec.stages.fusion_inputs import Sources, check_item_map
from tslrec.stages.restored import Restored
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_tensors

WEIGHTS = "item_weights.safetensors"
"""The stage's result: `weights` `[I + 1, I + 1]`; or of a rank R `input` and `output`, `[I + 1, R]` both."""


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
    if any(len(table) != rows for table in tables.values()) or set(tables) not in ({"weights"}, {"input", "output"}):
        raise UserError(f"{path}: no item weights of {rows} rows (padding included); delete {folder} to compute them")
    return recommender(tables, int(sources.interactions.lengths.max()))


def recommender(tables: dict[str, Tensor], longest: int) -> Restored:
    """The recommender of some item weights.

    Args:
        tables: see `WEIGHTS`.
        longest: items of the longest history, so that no history of the data set is cut.
    """
    if "weights" in tables:
        return Restored(lambda items_BL, lengths_B: had(items_BL, len(tables["weights"])), tables["weights"], longest)
    return Restored(lambda items_BL, lengths_B: sum_of_rows(items_BL, tables["input"]), tables["output"], longest)


def had(items_BL: Tensor, width: int) -> Tensor:
    """Which items each history has, float32 `[B, I + 1]`, 1 or 0; padding is none.

    Args:
        items_BL: item ids, padded with 0.
        width: I + 1.
    """
    had_BI = torch.zeros(len(items_BL), width).scatter_(1, items_BL, 1.0)
    had_BI[:, PADDING] = 0
    return had_BI


def sum_of_rows(items_BL: Tensor, table_IR: Tensor) -> Tensor:
    """The sum of the rows of each history's items, `[B, R]`; an item that is repeated counts once.

    Args:
        items_BL: item ids, padded with 0.
        table_IR: row 0 is zero.
    """
    sorted_BL = items_BL.sort(dim=1).values
    repeated_BL = F.pad(sorted_BL[:, 1:] == sorted_BL[:, :-1], (1, 0), value=False)
    sums_BR: Tensor = F.embedding_bag(sorted_BL.masked_fill(repeated_BL, PADDING), table_IR, mode="sum")
    return sums_BR
