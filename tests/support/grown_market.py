"""A small market before and after it grew, as CSV files: users, items and histories are added, and all numbers move."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tslrec.data.formats.synthetic import generate

USERS, ITEMS, CATEGORIES = 60, 40, 4
OLD_USERS, OLD_ITEMS = 50, 36
COLD = ("cold-1", "cold-2")
"""New items that each occur once, as the last item of a history, so that nothing of them is trained."""

SETTINGS = (
    "data=csv",
    "data.reader.time_column=null",
    "llm=tiny",
    f"preferences.num_clusters={CATEGORIES}",
    "model.hidden_size=8",
    "training.max_epochs=2",
)
"""Overrides with which all five stages take a few seconds."""


def write_market(folder: Path) -> tuple[Path, Path]:
    """Writes `old.csv` and `grown.csv`; returns their paths.

    The grown market has ten more users, four more items with interactions, and two cold items. Its users stand in the
    opposite order, so that all users and most items have other numbers.
    """
    rows = generate(num_users=USERS, num_items=ITEMS, num_categories=CATEGORIES, average_length=12).rows
    rows = rows.select("user", "item").with_columns(
        user_number=pl.col("user").str.slice(4).cast(pl.Int64), item_number=pl.col("item").str.slice(4).cast(pl.Int64)
    )
    old = rows.filter(pl.col("user_number") < OLD_USERS, pl.col("item_number") < OLD_ITEMS)
    grown = rows.sort("user_number", descending=True, maintain_order=True).select("user", "item")
    cold = pl.DataFrame({"user": ["user00000", "user00055"], "item": list(COLD)})
    paths = folder / "old.csv", folder / "grown.csv"
    old.select("user", "item").write_csv(paths[0])
    pl.concat([grown, cold]).write_csv(paths[1])
    return paths
