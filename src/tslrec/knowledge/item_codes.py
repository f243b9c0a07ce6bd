"""Codes of items by residual k-means: each level clusters what the levels before it leave of the vectors.

Shapes: I items (row 0 of a table is padding), C levels, M tables, E size of a table's rows, D of all together, K codes
of a level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tslrec.system.errors import UserError

NO_CODE = -1
"""Code of the padding row, on each level."""


def joined_vectors(tables: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The rows of several tables beside each other, none of which counts for more than another.

    Each table is centred and then scaled so that the mean of its rows' squared norms is 1; one whose rows are all equal
    becomes zero.

    Args:
        tables: M tables `[I + 1, E]` of sizes E that may differ; row 0 is not read.

    Returns:
        `[I, D]`, without padding.
    """
    return np.concatenate([scaled(table_IE[1:]) for table_IE in tables], axis=1)


def scaled(vectors_IE: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors with mean 0, and 1 as the mean of their squared norms; zeros where all are equal."""
    double_IE = vectors_IE.astype(np.float64)
    if (double_IE == double_IE[0]).all():
        return np.zeros_like(vectors_IE)
    # Divided first: squares of the largest float32 numbers are no float32 any more.
    double_IE /= np.abs(double_IE).max()
    double_IE -= double_IE.mean(axis=0)
    found: NDArray[np.float32] = (double_IE / np.sqrt((double_IE**2).sum(axis=1).mean())).astype(np.float32)
    return found


def residual_codes(
    vectors_ID: NDArray[np.float32], sizes: Sequence[int], *, num_starts: int, seed: int
) -> tuple[NDArray[np.int64], list[float]]:
    """Groups the items by k-means, then what is left of each vector after its group's mean is taken away, and so on.

    Lloyd's algorithm with k-means++.

    Args:
        vectors_ID: of the items, without padding.
        sizes: K of each level.
        num_starts: runs of each k-means from other initial centroids, of which the one with the least inertia is kept.
        seed: decides every draw.

    Returns:
        The codes, int64 `[I + 1, C]`, `NO_CODE` for padding; and the share of the vectors' variance that the levels up
        to each one explain, from 0 to 1.

    Raises:
        UserError: if a level has fewer distinct vectors than codes.
    """
    from sklearn.cluster import KMeans

    left_ID = vectors_ID.astype(np.float64)
    left_ID -= left_ID.mean(axis=0)
    total = float((left_ID**2).sum())
    codes_IC = np.full((len(vectors_ID) + 1, len(sizes)), NO_CODE, dtype=np.int64)
    explained = []
    for level, size in enumerate(sizes):
        residual_ID = np.ascontiguousarray(left_ID, dtype=np.float32)
        distinct = len(np.unique(residual_ID, axis=0))
        if distinct < size:
            raise UserError(
                f"codes.sizes={list(sizes)}: level {level + 1} has {distinct} distinct vectors, which make no {size} "
                f"groups; set it to {distinct} or less, or leave it out"
            )
        kmeans = KMeans(size, init="k-means++", n_init=num_starts, random_state=seed + level).fit(residual_ID)
        codes_IC[1:, level] = kmeans.labels_
        left_ID -= means_of(left_ID, kmeans.labels_, size)[kmeans.labels_]
        explained.append(max(0.0, 1 - float((left_ID**2).sum()) / total) if total > 0 else 1.0)
    return codes_IC, explained


def means_of(vectors_ID: NDArray[np.float64], codes_I: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """The mean vector of each code's items, `[K, D]`; of one item it is the item's vector, to the last bit."""
    sums_KD = np.zeros((size, vectors_ID.shape[1]))
    np.add.at(sums_KD, codes_I, vectors_ID)
    return sums_KD / np.bincount(codes_I, minlength=size).clip(min=1)[:, None]


def permuted(codes_IC: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """The codes of a random other item for each item: as many items share them, and they say nothing.

    Args:
        codes_IC: see `residual_codes`.
        seed: of the permutation.
    """
    order_I = np.random.default_rng(seed).permutation(len(codes_IC) - 1) + 1
    return np.concatenate([codes_IC[:1], codes_IC[order_I]])
