"""The two ranking protocols of the literature, and the metrics of the paper's tables."""

from __future__ import annotations

PROTOCOLS = {"masked": "masked", "unmasked": "not masked"}
"""Whether items that the user had before are candidates: `masked`, they are not; `unmasked`, they are. The values are
the protocols' names in tables."""

CUTOFFS = (5, 10)
"""The list lengths k of the paper's metrics."""
METRICS = ("HR@5", "HR@10", "NDCG@5", "NDCG@10")
"""The metrics of the paper's Table 2."""

LIST_LENGTH = 10
"""Items that a method which generates its recommendations gives each user."""
LIST_MARK = f"list of {LIST_LENGTH} by beam search"
"""What stands beside the numbers of such a method: they are of no full ranking. Beam search can miss better items."""
LIST_SIGN = "†"
"""Stands for `LIST_MARK` in tables of a terminal, which explain it below."""
LIST_NOTE = f"{LIST_SIGN} {LIST_MARK}, no full ranking: a target outside has no rank"
"""One line of a terminal with 80 columns."""
