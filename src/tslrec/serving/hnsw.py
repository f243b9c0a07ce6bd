"""An HNSW graph over item vectors: built with faiss, stored as plain arrays, checked when it is read.

faiss's own files are not read: its reader is C++ that trusts what it reads, and a folder may come from anywhere. Here a
folder holds the graph as integers in safetensors, and each of them is compared with its bounds before faiss sees it.

Edges and searches go by inner products. To make them Euclidean distances, by one more number for each vector, is equal
in theory, but finds few of the best items of some tables, where inner products find most.

Shapes: I items (without padding), E size of a vector, N neighbours of all items on all levels, B users, W
places of a search, M neighbours of an item on each level but the lowest, which has 2 M.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tslrec.serving.engine import Floats, Ids
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_arrays

M = 32
EF_CONSTRUCTION = 200
"""Items that are considered as neighbours when an item is added."""
EF_SEARCH = 512
"""Items that a search considers, at least."""
LEVELS, NEIGHBOURS, ENTRY = "levels", "neighbours", "entry"
"""Arrays of the file: the number of levels of each item, int32 `[I]`; its neighbours level by level, int32 `[N]`, -1
for none; and the item where each search begins, int64 `[1]`. Items are counted from 0."""


def build(vectors_IE: Floats) -> faiss.IndexHNSWFlat:
    """Builds the graph; several threads (`OMP_NUM_THREADS`) share the work.

    Args:
        vectors_IE: item vectors.
    """
    index = empty(vectors_IE.shape[1])
    index.add(vectors_IE)
    return index


def empty(size: int) -> faiss.IndexHNSWFlat:
    """An index without items.

    Args:
        size: E.
    """
    index = faiss.IndexHNSWFlat(size, M, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    return index


def search(index: faiss.IndexHNSWFlat, user_BE: Floats, width: int) -> tuple[Floats, Ids]:
    """The W items that probably have the highest inner products with each user vector, best first.

    Args:
        index: see `build`.
        user_BE: user vectors.
        width: W.

    Returns:
        Inner products `[B, W]`, and items `[B, W]`, counted from 0; -1 for none.
    """
    parameters = faiss.SearchParametersHNSW(efSearch=max(EF_SEARCH, 2 * width))  # type: ignore[attr-defined]
    found: tuple[Floats, Ids] = index.search(np.ascontiguousarray(user_BE), width, params=parameters)
    return found


def write_graph(index: faiss.IndexHNSWFlat, path: Path) -> None:
    """Writes the graph without the vectors, which the folder has already."""
    graph: Any = index.hnsw
    save_file(
        {
            LEVELS: faiss.vector_to_array(graph.levels),
            NEIGHBOURS: faiss.vector_to_array(graph.neighbors),
            ENTRY: np.array([graph.entry_point], dtype=np.int64),
        },
        path,
    )


def read_graph(path: Path, vectors_IE: Floats) -> faiss.IndexHNSWFlat:
    """Reads a graph and adds the vectors.

    Args:
        path: written by `write_graph`.
        vectors_IE: the item vectors that the graph was built of.

    Raises:
        UserError: if the graph is not one of these items, or refers to anything outside of itself.
    """
    index = empty(vectors_IE.shape[1])
    arrays = load_arrays(path)
    widths = faiss.vector_to_array(index.hnsw.cum_nneighbor_per_level).astype(np.int64)
    reason = fault(arrays, len(vectors_IE), widths)
    if reason:
        raise UserError(f"{path}: {reason}; export the recommender again")
    levels_I, neighbours_N = arrays[LEVELS], arrays[NEIGHBOURS]
    offsets = np.concatenate([[0], np.cumsum(widths[levels_I])]).astype(np.uint64)
    faiss.downcast_index(index.storage).add(vectors_IE)
    graph: Any = index.hnsw
    faiss.copy_array_to_vector(levels_I, graph.levels)
    faiss.copy_array_to_vector(offsets, graph.offsets)
    faiss.copy_array_to_vector(neighbours_N, graph.neighbors)
    graph.entry_point, graph.max_level = int(arrays[ENTRY][0]), int(levels_I.max()) - 1
    index.ntotal = len(vectors_IE)
    return index


def fault(arrays: Mapping[str, NDArray[Any]], num_items: int, widths: Ids) -> str:
    """What is wrong with the arrays of a graph; empty if nothing is.

    Args:
        arrays: of the file.
        num_items: I.
        widths: places for neighbours of an item with 0, 1, 2, … levels.
    """
    expected = {LEVELS: np.int32, NEIGHBOURS: np.int32, ENTRY: np.int64}
    if any(
        name not in arrays or arrays[name].dtype != dtype or arrays[name].ndim != 1 for name, dtype in expected.items()
    ):
        return "not a graph of neighbours"
    levels_I, neighbours_N, entry = arrays[LEVELS], arrays[NEIGHBOURS], arrays[ENTRY]
    if len(levels_I) != num_items or len(entry) != 1:
        return f"a graph of {len(levels_I):,} items, but the recommender has {num_items:,}"
    if levels_I.min() < 1 or levels_I.max() >= len(widths):
        return f"a number of levels outside of 1..{len(widths) - 1}"
    if len(neighbours_N) != widths[levels_I].sum():
        return f"{len(neighbours_N):,} neighbours instead of {widths[levels_I].sum():,}"
    if neighbours_N.min() < -1 or neighbours_N.max() >= num_items:
        return f"a neighbour outside of 0..{num_items - 1}"
    if not 0 <= entry[0] < num_items or levels_I[entry[0]] != levels_I.max():
        return "a search would not begin at an item of the highest level"
    begins_I = np.cumsum(widths[levels_I]) - widths[levels_I]
    for level in range(1, int(levels_I.max())):
        # A search reads a neighbour's own neighbours of the same level, so the neighbour must have this level.
        begins = begins_I[levels_I > level] + widths[level]
        places = begins[:, None] + np.arange(widths[level + 1] - widths[level])
        found = neighbours_N[places]
        if (levels_I[found[found >= 0]] <= level).any():
            return f"a neighbour on level {level} that has no such level"
    return ""
