"""Which metrics an evaluation computes, and which of them selects."""

from __future__ import annotations

DEFAULT_METRICS = ("HR@5", "HR@10", "NDCG@5", "NDCG@10")
"""The metrics of an evaluation where `Config.metrics` names no others: those of the paper's Table 2."""

SELECTING_METRIC = "NDCG@10"
"""The validation metric that selects a recommender's weights; every validation computes it."""

MONITORED = f"validation/{{protocol}}/{SELECTING_METRIC}"
"""Its name in logs, by the ranking protocol of `TrainingConfig.selection`."""
