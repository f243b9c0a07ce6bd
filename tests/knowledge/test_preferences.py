"""Latent categories and preference distributions."""

from __future__ import annotations

import numpy as np
import pytest

from support.interactions import make_interactions
from tslrec.knowledge.preferences import NO_CLUSTER, cluster_items, user_preferences
from tslrec.system.errors import UserError


def blobs(num_items: int, num_groups: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Item embeddings around well-separated centres (row 0 is padding, placed far off), and each item's group."""
    draw = np.random.default_rng(seed)
    groups = draw.integers(num_groups, size=num_items)
    centres = 10 * draw.normal(size=(num_groups, 6))
    vectors = np.concatenate([np.full((1, 6), 1e3), centres[groups] + 0.1 * draw.normal(size=(num_items, 6))])
    return vectors.astype(np.float32), groups


def test_clusters_find_separated_groups() -> None:
    vectors, groups = blobs(60, 4)
    clusters, centroids = cluster_items(vectors, num_clusters=4, num_starts=4, seed=1)
    pairs = {(int(group), int(cluster)) for group, cluster in zip(groups, clusters[1:], strict=True)}
    assert len(pairs) == 4
    assert centroids.shape == (4, 6)
    # The padding row, placed far off, would have pulled a centroid to itself had it taken part.
    assert np.abs(centroids).max() < 100


def test_clusters_are_decided_by_the_seed() -> None:
    vectors = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)
    first, _ = cluster_items(vectors, num_clusters=9, num_starts=1, seed=3)
    again, _ = cluster_items(vectors, num_clusters=9, num_starts=1, seed=3)
    other, _ = cluster_items(vectors, num_clusters=9, num_starts=1, seed=4)
    assert (first == again).all()
    assert (first != other).any()


def test_no_group_is_empty_and_padding_has_none() -> None:
    vectors = np.random.default_rng(0).normal(size=(31, 5)).astype(np.float32)
    clusters, _ = cluster_items(vectors, num_clusters=30, num_starts=1, seed=0)
    assert clusters[0] == NO_CLUSTER
    assert sorted(clusters[1:]) == list(range(30))


def test_more_groups_than_distinct_items_are_refused() -> None:
    vectors = np.ones((10, 3), dtype=np.float32)
    with pytest.raises(UserError, match=r"1 distinct item embeddings.*num_clusters to 1"):
        cluster_items(vectors, num_clusters=2, num_starts=1, seed=0)


def test_preferences_count_the_training_part_only() -> None:
    # Users 0 and 1 are evaluated: their last two items (all of category 2) must not count.
    interactions = make_interactions([[1, 1, 2, 3, 3], [2, 4, 3, 3], [1, 4]], num_items=4)
    clusters = np.array([NO_CLUSTER, 0, 1, 2, 1])
    expected: np.ndarray = np.array([[2 / 3, 1 / 3, 0], [0, 1, 0], [1 / 2, 1 / 2, 0]])
    np.testing.assert_allclose(user_preferences(interactions, clusters, 3), expected, atol=1e-7)


def test_preferences_sum_to_one() -> None:
    draw = np.random.default_rng(0)
    interactions = make_interactions([draw.integers(1, 21, size=draw.integers(1, 30)).tolist() for _ in range(50)], 20)
    clusters = np.concatenate([[NO_CLUSTER], np.arange(20) % 7])
    np.testing.assert_allclose(user_preferences(interactions, clusters, 7).sum(axis=1), np.ones(50), atol=1e-6)
