"""The two ranking protocols of the literature, and the metrics of the paper's tables."""

from __future__ import annotations

PROTOCOLS = {"masked": "masked", "unmasked": "not masked"}
"""Whether items that the user had before are candidates: `masked`, they are not; `unmasked`, they are. The values are
the protocols' names in tables."""

CUTOFFS = (5, 10)
"""The list lengths k of the paper's metrics."""
METRICS = ("HR@5", "HR@10", "NDCG@5", "NDCG@10")
"""The metrics of the paper's Table 2."""
