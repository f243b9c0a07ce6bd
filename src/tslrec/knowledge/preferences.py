"""Latent categories of items and preferences of users over them (paper, Section 4.1).

Shapes: I items (row 0 is padding), U users, K clusters, D hidden size of the backbone, N interactions,
R items.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tslrec.data.interactions import PADDING, Interactions
from tslrec.system.errors import UserError

NO_CLUSTER = -1
"""Cluster of the padding row."""


def cluster_items(
    item_embeddings_ID: NDArray[np.float32], *, num_clusters: int, num_starts: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Groups the items into K latent categories by k-means over their embeddings.

    Lloyd's algorithm with k-means++ (the paper cites Hartigan and Wong 1979). The padding row is left out.

    Args:
        item_embeddings_ID: `[I + 1, D]`.
        num_clusters: K.
        num_starts: runs of k-means from other initial centroids, of which the one with the least inertia is kept.
        seed: decides every draw.

    Returns:
        The cluster of each item, int64 `[I + 1]` (`NO_CLUSTER` for padding), and the centroids `[K, D]`.

    Raises:
        UserError: if the items have fewer than K distinct embeddings, or a cluster stays empty.
    """
    from sklearn.cluster import KMeans

    vectors = np.ascontiguousarray(item_embeddings_ID[1:], dtype=np.float32)
    distinct = len(np.unique(vectors, axis=0))
    if distinct < num_clusters:
        raise UserError(
            f"preferences: {distinct} distinct item embeddings cannot make {num_clusters} groups; "
            f"set preferences.num_clusters to {distinct} or less"
        )
    kmeans = KMeans(num_clusters, init="k-means++", n_init=num_starts, random_state=seed).fit(vectors)
    sizes = np.bincount(kmeans.labels_, minlength=num_clusters)
    if (sizes == 0).any():
        raise UserError(
            f"preferences: {int((sizes == 0).sum())} of {num_clusters} groups stayed empty; "
            "set preferences.num_clusters lower"
        )
    clusters = np.concatenate([[NO_CLUSTER], kmeans.labels_]).astype(np.int64)
    return clusters, kmeans.cluster_centers_.astype(np.float32)


def nearest_centroids(vectors_RD: NDArray[np.float32], centroids_KD: NDArray[np.float32]) -> NDArray[np.int64]:
    """The number of the centroid that is nearest to each vector, `[R]`; of equally near ones the first.

    Args:
        vectors_RD: item embeddings.
        centroids_KD: as `cluster_items` gives them.
    """
    # The squared distance without the vector's own length, which is the same for all centroids.
    distances_RK = (centroids_KD**2).sum(axis=1) - 2 * vectors_RD @ centroids_KD.T
    return np.asarray(distances_RK.argmin(axis=1), dtype=np.int64)


def user_preferences(
    interactions: Interactions, clusters_I: NDArray[np.int64], num_clusters: int
) -> NDArray[np.float32]:
    """The users' normalised interaction frequency vectors: shares of the categories in the training part.

    Every interaction counts, so a repeated item counts again. Validation and test items do not count.

    Args:
        interactions: the data set.
        clusters_I: cluster of each item, `NO_CLUSTER` for padding.
        num_clusters: K.

    Returns:
        Float32 `[U, K]`, each row summing to 1.

    Raises:
        ValueError: if an item has no cluster, or padding has one.
    """
    users = np.repeat(np.arange(interactions.num_users), interactions.lengths)
    trained = interactions.is_training_N
    if clusters_I[PADDING] != NO_CLUSTER or (clusters_I[1:] < 0).any():
        raise ValueError("every item needs a cluster, and padding must have none")
    flat = users[trained] * num_clusters + clusters_I[interactions.items[trained]]
    counts = np.bincount(flat, minlength=interactions.num_users * num_clusters)
    counts_UK = counts.reshape(interactions.num_users, num_clusters).astype(np.float64)
    return (counts_UK / counts_UK.sum(axis=1, keepdims=True)).astype(np.float32)
