"""What stages exchange: the names of their files, and how one stage reads what another wrote.

Shapes: I items (row 0 is padding), C cold items, U users, K categories, D hidden size of the backbone, H size of
an item's knowledge.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tslrec.system.row_tables import FileTable

WEIGHTS = "weights.safetensors"
"""State dict of a recommender at its best validation."""

ITEM_EMBEDDINGS = "item_embeddings.safetensors"
"""The backbone's `item_embeddings` `[I + 1, D]`, row 0 zeros."""

PREFERENCES = "preferences.safetensors"
"""The preference stage's `clusters` `[I + 1]`, `preferences` `[U, K]` and `centroids` `[K, D]`."""

GATES = "gates.safetensors"
"""`id_shares` `[I + 1]` of a fusion with a gate: the share of each item's own free vector, from 0 to 1."""

COLD_ROWS = "cold_rows.safetensors"
"""Of a continued fusion, where it has items without training interactions: `items` `[C]` and their `rows` `[C, D]` of
the fused table, which take the place of what the fusion gives."""

KNOWLEDGE_SCALING = "knowledge_scaling.safetensors"
"""Of a continued fusion: `mean` and `scale` `[H]`, by which its knowledge is standardised."""

ENSEMBLE = "ensemble.json"
"""Of an ensemble: the `weights` of its `members`, and the `trials` of the search for them."""

CALIBRATION = "calibration.json"
"""The preference SFT's predicted and actual shares by category."""


def item_embeddings(folder: Path) -> FileTable:
    """The backbone's item embeddings `[I + 1, D]`, read from disk slice by slice.

    Args:
        folder: the backbone stage's artifact.

    Raises:
        UserError: if the file has no such array.
    """
    return FileTable(folder / ITEM_EMBEDDINGS, "item_embeddings")


def read_item_embeddings(folder: Path) -> Tensor:
    """The backbone's item embeddings as one float32 tensor `[I + 1, D]`; a float32 file is mapped, not copied.

    Args:
        folder: the backbone stage's artifact.

    Raises:
        UserError: if the file has no such array.
    """
    return item_embeddings(folder)[:].to(torch.float32)


def centroids(folder: Path) -> FileTable:
    """The centroids of the categories `[K, D]`, read from disk slice by slice.

    Args:
        folder: the preference stage's artifact.

    Raises:
        UserError: if the file has no such array.
    """
    return FileTable(folder / PREFERENCES, "centroids")


def clusters(folder: Path) -> Tensor:
    """The category of each item, int64 `[I + 1]`, -1 for padding.

    Args:
        folder: the preference stage's artifact.

    Raises:
        UserError: if the file has no such array.
    """
    return FileTable(folder / PREFERENCES, "clusters", dimensions=1)[:]
