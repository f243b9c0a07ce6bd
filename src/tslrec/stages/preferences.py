"""Stage 2 of the pipeline: latent categories and preference distributions from the backbone's item embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tslrec.arrays import ID_MAP, load_arrays
from tslrec.preferences import cluster_items, soft_memberships, soft_preferences, user_preferences
from tslrec.stages.context import StageContext

VERSION = 1
TOGETHER = False


def run(context: StageContext) -> dict[str, Any]:
    """Writes `preferences.safetensors`: `clusters` `[I + 1]`, `preferences` `[U, K]`, `centroids` `[K, D]`.

    And `memberships` `[I + 1, K]` where items count for several categories.

    Returns:
        The smallest and largest group, and the adjusted Rand index against the true categories where they are known.
    """
    config = context.config.preferences
    item_embeddings_ID = load_arrays(context.inputs["backbone"] / "item_embeddings.safetensors")["item_embeddings"]
    clusters_I, centroids_KD = cluster_items(
        item_embeddings_ID, num_clusters=config.num_clusters, num_starts=config.num_starts, seed=context.seed
    )
    arrays: dict[str, NDArray[Any]] = {"clusters": clusters_I, "centroids": centroids_KD}
    if config.softness == 0:
        arrays["preferences"] = user_preferences(context.interactions, clusters_I, config.num_clusters)
    else:
        memberships_IK = soft_memberships(item_embeddings_ID, centroids_KD, config.softness)
        arrays["memberships"] = memberships_IK
        arrays["preferences"] = soft_preferences(context.interactions, memberships_IK)
    save_file(
        arrays,
        context.folder / "preferences.safetensors",
        metadata={ID_MAP: context.interactions.ids.digest},
    )
    sizes = np.bincount(clusters_I[1:], minlength=config.num_clusters)
    metrics: dict[str, Any] = {"smallest_group": int(sizes.min()), "largest_group": int(sizes.max())}
    truth = context.interactions.true_categories
    if truth is not None:
        from sklearn.metrics import adjusted_rand_score

        metrics["ari_clusters"] = float(adjusted_rand_score(truth[1:], clusters_I[1:]))
    return metrics
