"""Stage 2 of the pipeline: latent categories and preference distributions (paper, Section 4.1).

Shapes: I items (row 0 is padding), U users, K categories, D hidden size of the backbone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tslrec.knowledge.preferences import cluster_items, nearest_centroids, user_preferences
from tslrec.stages.carrying import numbers_before
from tslrec.stages.context import Earlier, StageContext
from tslrec.stages.outputs import PREFERENCES, centroids, clusters, read_item_embeddings
from tslrec.system.safetensors_io import ID_MAP


def run(context: StageContext) -> dict[str, Any]:
    """Clusters the backbone's item embeddings by k-means, and counts each user's training items per cluster.

    A run that is continued keeps the centroids and the clusters of earlier items; a new item joins the nearest one.

    Writes `preferences.safetensors`: `clusters` `[I + 1]`, -1 for padding; `preferences` `[U, K]`, each row a
    distribution; `centroids` `[K, D]`.

    Returns:
        `smallest_group` and `largest_group`: items in the smallest and the largest cluster. `ari_clusters`: adjusted
        Rand index of the clusters against the true categories, where the data set has them.
    """
    config = context.config.preferences
    item_embeddings_ID = read_item_embeddings(context.inputs["backbone"]).numpy()
    if context.earlier is None:
        clusters_I, centroids_KD = cluster_items(
            item_embeddings_ID, num_clusters=config.num_clusters, num_starts=config.num_starts, seed=context.seed
        )
    else:
        clusters_I, centroids_KD = extended_clusters(context, context.earlier, item_embeddings_ID)
    arrays: dict[str, NDArray[Any]] = {"clusters": clusters_I, "centroids": centroids_KD}
    arrays["preferences"] = user_preferences(context.interactions, clusters_I, config.num_clusters)
    save_file(
        arrays,
        context.folder / PREFERENCES,
        metadata={ID_MAP: context.interactions.ids.digest},
    )
    sizes_K = np.bincount(clusters_I[1:], minlength=config.num_clusters)
    metrics: dict[str, Any] = {"smallest_group": int(sizes_K.min()), "largest_group": int(sizes_K.max())}
    truth_I = context.interactions.true_categories
    if truth_I is not None:
        from sklearn.metrics import adjusted_rand_score

        metrics["ari_clusters"] = float(adjusted_rand_score(truth_I[1:], clusters_I[1:]))
    return metrics


def extended_clusters(
    context: StageContext, earlier: Earlier, item_embeddings_ID: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The earlier clusters by raw id, with each new item in the cluster of the nearest centroid.

    Args:
        context: the stage's.
        earlier: the earlier run.
        item_embeddings_ID: today's `[I + 1, D]`.

    Returns:
        The cluster of each item `[I + 1]`, and the earlier centroids `[K, D]`.
    """
    folder = earlier.folders["preferences"]
    centroids_KD = centroids(folder)[:].numpy()
    numbers_I = numbers_before(earlier.interactions.ids.items, context.interactions.ids.items)
    clusters_I = clusters(folder).numpy()[numbers_I]
    new_I = numbers_I < 0
    clusters_I[new_I] = nearest_centroids(item_embeddings_ID[new_I], centroids_KD)
    return clusters_I, centroids_KD
