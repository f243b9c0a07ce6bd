"""What a run that reranks a retriever's candidates says of itself: what there was to rank, and what it was trained on.

Shapes: K candidates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tslrec.pipeline.result_names import method_title
from tslrec.pipeline.results import MethodResult

RETRIEVED = "retrieved/masked", "retrieved/unmasked"
"""Metrics of a stage that reranks: the share of the users whose target is among the candidates, by protocol."""

CUTOFF = 10
"""The metric by which a random order is shown is NDCG at this number of items."""


def reranking(results: Sequence[MethodResult]) -> list[str]:
    """Lines on each method that reranks, for the closing table."""
    return [line for result in results if RETRIEVED[0] in result.metrics for line in lines_of(result)]


def lines_of(result: MethodResult) -> list[str]:
    """What a method reranked, what a random order of the candidates would give, and what it was trained on."""
    metrics, numbers = result.metrics, result.config["llamarec"]
    title, users = method_title(result.method, result.config), metrics["test/users"]
    masked, unmasked = (metrics[name] for name in RETRIEVED)
    titles = {} if result.titles is None else result.titles.metrics
    count = min(numbers["candidates"], titles.get("items", numbers["candidates"]))
    chance = [by_chance(share, count) for share in (masked, unmasked)]
    return [
        f"{title}: target among the first {count} of {result.source_model} for {masked:.1%} of {users:,} users, not "
        f"masked {unmasked:.1%}; {metrics['reranked_users']:,} users' lists reranked",
        f"{title}: a random order of them has NDCG@{CUTOFF} {chance[0]:.4f}, not masked {chance[1]:.4f}",
        f"{title}: {metrics['instances']:,} training instances, a share of {numbers['share']:g}; "
        f"{metrics['missing_titles']:,} items without a title",
    ]


def by_chance(share: float, count: int) -> float:
    """The expected NDCG@10 of candidates in a random order.

    Args:
        share: of the users whose target is among the candidates.
        count: K.
    """
    return share / count * sum(1 / math.log2(1 + place) for place in range(1, min(CUTOFF, count) + 1))
