"""The closed form of EASE (Steck 2019, "Embarrassingly shallow autoencoders for sparse data", WWW).

Each item's score is a weighted sum of the items of a history. The weights of item j are the ridge regression of "the
user has j" on "the user has i" for all other items i, over the training parts. All I regressions have one closed form:
with G = XᵀX + λ·1 and P = G⁻¹, B_ij = -P_ij / P_jj for i ≠ j, and 0 for i = j (the paper's Section 3.1).

Shapes: U users, I items, W items of a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tslrec.data.interactions import Interactions
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

BLOCK = 512
"""W: rows of the result that are written at a time."""


def training_matrix(interactions: Interactions) -> csr_array:
    """Which items are in each user's training part: X, float64 `[U, I]`, 1 or 0; an item that is repeated counts once.

    Column i stands for item i + 1.
    """
    from scipy.sparse import csr_array

    trained_N = interactions.is_training_N
    users = np.repeat(np.arange(interactions.num_users), interactions.lengths)[trained_N]
    columns = interactions.items[trained_N].astype(np.int64) - 1
    shape = interactions.num_users, interactions.num_items
    matrix_UI = csr_array((np.ones(len(users)), (users, columns)), shape=shape)
    matrix_UI.sum_duplicates()
    matrix_UI.data[:] = 1
    return matrix_UI


def item_weights(matrix_UI: csr_array, penalty: float) -> NDArray[np.float32]:
    """The item weights: row j has what item j's score is made of.

    The inverse is computed in place: beside the result there are one dense float64 matrix and the products as a sparse
    one.

    Args:
        matrix_UI: see `training_matrix`.
        penalty: λ.

    Returns:
        Bᵀ with a row and a column of zeros for padding, `[I + 1, I + 1]`.

    Raises:
        UserError: if the penalty is so small that the equations cannot be solved.
    """
    from scipy.linalg.lapack import dpotrf, dpotri

    num_items = matrix_UI.shape[1]
    # LAPACK works in place on matrices in Fortran's order only.
    inverse_II = (matrix_UI.T @ matrix_UI).toarray(order="F")
    inverse_II[np.diag_indices(num_items)] += penalty
    inverse_II, failed = dpotrf(inverse_II, lower=1, clean=0, overwrite_a=1)
    if failed == 0:
        inverse_II, failed = dpotri(inverse_II, lower=1, overwrite_c=1)
    own_I = inverse_II.diagonal().copy()
    weights_II = np.zeros((num_items + 1, num_items + 1), dtype=np.float32)
    if failed == 0 and (own_I > 0).all():
        with np.errstate(over="ignore", invalid="ignore"):
            for begin in range(0, num_items, BLOCK):
                end = min(begin + BLOCK, num_items)
                weights_II[begin + 1 : end + 1, 1:] = rows_of(inverse_II, begin, end) / -own_I[begin:end, None]
    if failed != 0 or not (own_I > 0).all() or not np.isfinite(weights_II).all():
        raise UserError(f"ease.penalty={penalty:g}: too small, the item weights cannot be computed; set it higher")
    np.fill_diagonal(weights_II, 0)
    return weights_II


def rows_of(lower_II: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
    """Some rows of a symmetric matrix, `[W, I]`, of which the lower triangle is filled."""
    rows_WI = np.empty((end - begin, len(lower_II)))
    rows_WI[:, :begin] = lower_II[begin:end, :begin]
    triangle_WW = np.tril(lower_II[begin:end, begin:end])
    rows_WI[:, begin:end] = triangle_WW + np.tril(triangle_WW, -1).T
    rows_WI[:, end:] = lower_II[end:, begin:end].T
    return rows_WI
