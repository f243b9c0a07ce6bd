"""Latent categories of items and preferences of users (paper, Section 4.1): arrays in, arrays out.

Shapes: I items (row 0 is padding), U users, K clusters, D hidden size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tslrec.errors import UserError
from tslrec.interactions import PADDING, Interactions

NO_CLUSTER = -1


def cluster_items(
    item_embeddings_ID: NDArray[np.float32], *, num_clusters: int, num_starts: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Groups the items into K latent categories by k-means over their embeddings.

    k-means++ starts `num_starts` times and keeps the run of least inertia (Lloyd's algorithm; the paper cites
    Hartigan and Wong 1979). The padding row takes no part.

    Args:
        item_embeddings_ID: `[I + 1, D]`.
        num_clusters: K.
        num_starts: how often k-means starts anew.
        seed: decides every draw.

    Returns:
        The cluster of each item, int64 `[I + 1]` (`NO_CLUSTER` for padding), and the centroids `[K, D]`.

    Raises:
        UserError: if the items are too few, or too alike, for K groups none of which is empty.
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


def soft_memberships(
    item_embeddings_ID: NDArray[np.float32], centroids_KD: NDArray[np.float32], softness: float
) -> NDArray[np.float32]:
    """How much of each item is of each category: softmax(−‖x − c‖² / (`softness` × v)).

    v is the items' mean squared distance to the nearest centroid, so that the softness means the same for all
    embeddings: at 1, categories that are further off than the nearest by v count 1/e of it.

    Returns:
        float32 `[I + 1, K]`, each row summing to 1, but for padding's zeros.
    """
    vectors_ID = item_embeddings_ID[1:].astype(np.float64)
    squares_IK = (
        np.square(vectors_ID).sum(axis=1, keepdims=True)
        - 2 * vectors_ID @ centroids_KD.T
        + np.square(centroids_KD.astype(np.float64)).sum(axis=1)
    ).clip(min=0)
    nearest_I1 = squares_IK.min(axis=1, keepdims=True)
    weights_IK = np.exp(-(squares_IK - nearest_I1) / max(softness * nearest_I1.mean(), 1e-30))
    weights_IK /= weights_IK.sum(axis=1, keepdims=True)
    return np.concatenate([np.zeros((1, len(centroids_KD))), weights_IK]).astype(np.float32)


def soft_preferences(
    interactions: Interactions, memberships_IK: NDArray[np.float32], max_len: int | None = None
) -> NDArray[np.float32]:
    """`user_preferences` where an item counts for several categories: the mean of a user's items.

    Args:
        interactions: the data set.
        memberships_IK: from `soft_memberships`.
        max_len: how many of the last items of the training part count; None: all.

    Returns:
        float32 `[U, K]`, each row summing to 1.
    """
    ends_U = interactions.offsets[:-1] + interactions.train_lengths
    counts_U = np.minimum(interactions.train_lengths, max_len or interactions.train_lengths.max())
    preferences_UK = np.empty((interactions.num_users, memberships_IK.shape[1]), dtype=np.float32)
    for user, (end, count) in enumerate(zip(ends_U, counts_U, strict=True)):
        preferences_UK[user] = memberships_IK[interactions.items[end - count : end]].mean(axis=0)
    return preferences_UK


def user_preferences(
    interactions: Interactions, clusters_I: NDArray[np.int64], num_clusters: int
) -> NDArray[np.float32]:
    """The normalised interaction frequency vectors: how a user's training part is spread over the categories.

    Counts are of interactions, so a repeated item counts again; validation and test items never count.

    Returns:
        float32 `[U, K]`, each row summing to 1.
    """
    users = np.repeat(np.arange(interactions.num_users), interactions.lengths)
    trained = interactions.trained
    if clusters_I[PADDING] != NO_CLUSTER or (clusters_I[1:] < 0).any():
        raise ValueError("every item needs a cluster, padding none")
    flat = users[trained] * num_clusters + clusters_I[interactions.items[trained]]
    counts = np.bincount(flat, minlength=interactions.num_users * num_clusters)
    counts_UK = counts.reshape(interactions.num_users, num_clusters).astype(np.float64)
    return (counts_UK / counts_UK.sum(axis=1, keepdims=True)).astype(np.float32)
