"""Spectral clustering of a sparse graph whose result depends on the graph alone wherever the graph determines it.

It computes what scikit-learn's `SpectralClustering(assign_labels="cluster_qr", affinity="precomputed")` does (the
eigenvectors of the N smallest eigenvalues of I − D^-½ A D^-½, divided by √degree; Damle et al. 2019 turn them into
labels), without its dense factorisation, and with one answer where the eigenvectors are not unique because the graph
has several components.

Shapes: R items, N clusters, C items of one component, K eigenvectors of one component.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DENSE_UP_TO = 600
"""Items of a component up to which all eigenvalues are computed at once, which is exact also where several are equal;
the eigenvectors of a larger one are computed by products with the sparse matrix."""


def spectral_labels(
    adjacency_RR: csr_array, num_clusters: int, seed: int, *, dense_up_to: int = DENSE_UP_TO
) -> NDArray[np.int64]:
    """The cluster of each item, int64 `[R]`, from 0 to N − 1.

    Items without neighbours are in cluster 0, where the public code puts them. Two cases have no answer of their own:
    with more than N components, the N − 1 with the most items are clusters, and the others share the last one; with
    fewer than N items that have neighbours, all items are in cluster 0.

    Args:
        adjacency_RR: symmetric, not negative; its diagonal is ignored.
        num_clusters: N.
        seed: determines the start of the iteration for large components.
        dense_up_to: see `DENSE_UP_TO`.

    Raises:
        UserError: if the eigenvectors of a large component do not converge.
    """
    from scipy.sparse.csgraph import connected_components

    edges_RR = without_diagonal(adjacency_RR)
    degrees_R = np.asarray(edges_RR.sum(axis=0), dtype=np.float64)
    connected = np.flatnonzero(degrees_R > 0)
    labels_R = np.zeros(len(degrees_R), dtype=np.int64)
    if len(connected) < num_clusters:
        return labels_R
    graph_CC = edges_RR[connected][:, connected]
    count, component_C = connected_components(graph_CC, directed=False)
    if count > num_clusters:
        labels_R[:] = num_clusters - 1
        labels_R[connected] = largest_components(component_C, num_clusters)
        return labels_R
    vectors_CN = smallest_eigenvectors(
        graph_CC, degrees_R[connected], component_C, num_clusters, seed, dense_up_to=dense_up_to
    )
    labels_R[connected] = cluster_qr(vectors_CN / np.sqrt(degrees_R[connected])[:, None])
    return labels_R


def without_diagonal(matrix_RR: csr_array) -> csr_array:
    """A copy of a sparse matrix with nothing on its diagonal."""
    from scipy.sparse import coo_array, csr_array

    entries = coo_array(matrix_RR)
    kept = (entries.row != entries.col) & (entries.data != 0)
    return csr_array((entries.data[kept], (entries.row[kept], entries.col[kept])), shape=matrix_RR.shape)


def largest_components(component_C: NDArray[np.integer], num_clusters: int) -> NDArray[np.int64]:
    """Labels `[C]`: a cluster for each of the N − 1 components with the most items, and one for all others.

    Of components of equal size, the one with the earlier item counts as the larger.
    """
    sizes = np.bincount(component_C)
    _, first = np.unique(component_C, return_index=True)
    ranked = np.lexsort((first, -sizes))
    label = np.full(len(sizes), num_clusters - 1)
    label[ranked[: num_clusters - 1]] = np.arange(num_clusters - 1)
    labels_C: NDArray[np.int64] = label[component_C]
    return labels_C


def smallest_eigenvectors(
    graph_CC: csr_array,
    degrees_C: NDArray[np.float64],
    component_C: NDArray[np.integer],
    count: int,
    seed: int,
    *,
    dense_up_to: int,
) -> NDArray[np.float64]:
    """The eigenvectors `[C, N]` of the N smallest eigenvalues of I − D^-½ A D^-½, component by component.

    A connected graph has the eigenvalue 0 once; so every component gives one eigenvector with it, and its next ones
    compete with those of the other components. An iteration over the whole graph could miss equal eigenvalues.

    Args:
        graph_CC: see `spectral_labels`; no item is without neighbours.
        degrees_C: row sums.
        component_C: the component of each item.
        count: N, at least the number of components and at most the number of items.
        seed: see `spectral_labels`.
        dense_up_to: see `DENSE_UP_TO`.
    """
    from scipy.sparse import csr_array, diags_array

    inverse = diags_array(1 / np.sqrt(degrees_C))
    scaled_CC = csr_array(inverse @ graph_CC @ inverse)
    num_components = int(component_C.max()) + 1
    values, vectors = [], []
    for number in range(num_components):
        inside = np.flatnonzero(component_C == number)
        wanted = min(count - num_components + 1, len(inside))
        found_K, found_CK = largest_pairs(scaled_CC[inside][:, inside], wanted, seed, dense_up_to=dense_up_to)
        values.append(1 - found_K)
        spread_CK = np.zeros((len(component_C), wanted))
        spread_CK[inside] = found_CK
        vectors.append(spread_CK)
    smallest = np.argsort(np.concatenate(values), kind="stable")[:count]
    chosen: NDArray[np.float64] = np.concatenate(vectors, axis=1)[:, smallest]
    return chosen


def largest_pairs(
    matrix_CC: csr_array, count: int, seed: int, *, dense_up_to: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The largest eigenvalues of a symmetric matrix `[K]`, the largest first, and their eigenvectors `[C, K]`.

    Raises:
        UserError: if the iteration does not converge.
    """
    from scipy.linalg import eigh
    from scipy.sparse.linalg import ArpackNoConvergence, eigsh

    size = matrix_CC.shape[0]
    # Lanczos' basis must be larger than the number of eigenvectors and no larger than the matrix.
    if size <= max(dense_up_to, count + 1):
        values_K, vectors_CK = eigh(matrix_CC.toarray(), subset_by_index=[size - count, size - 1])
    else:
        start_C = np.random.default_rng(seed).uniform(-1, 1, size)
        basis = min(size, max(4 * count, 40))
        try:
            values_K, vectors_CK = eigsh(matrix_CC, k=count, which="LA", v0=start_C, ncv=basis, tol=0)
        except ArpackNoConvergence as error:
            raise UserError(
                f"item_index.num_clusters={count}: the eigenvectors of a group of {size} items did not converge; "
                "choose another number of clusters or another seed"
            ) from error
    order = np.argsort(-values_K, kind="stable")
    return values_K[order], vectors_CK[:, order]


def cluster_qr(vectors_CN: NDArray[np.float64]) -> NDArray[np.int64]:
    """Labels `[C]` from the rows of an invariant subspace (Damle, Minden and Ying 2019).

    N rows that are as orthogonal as possible, found by QR with pivoting, are turned onto the axes by the nearest
    orthogonal matrix; a row's label is the axis that it is nearest to.
    """
    from scipy.linalg import qr, svd

    count = vectors_CN.shape[1]
    _, pivots = qr(vectors_CN.T, pivoting=True, mode="r")
    left_NN, _, right_NN = svd(vectors_CN[pivots[:count]].T)
    labels_C: NDArray[np.int64] = np.abs(vectors_CN @ (left_NN @ right_NN)).argmax(axis=1).astype(np.int64)
    return labels_C
