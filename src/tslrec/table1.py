"""A data set's row of the paper's Table 1."""

from __future__ import annotations

from tslrec.interactions import Interactions


def table1_row(interactions: Interactions) -> dict[str, float]:
    """Users, items, interactions, density (a fraction) and average length of a history."""
    users, items, count = interactions.num_users, interactions.num_items, interactions.num_interactions
    return {
        "users": users,
        "items": items,
        "interactions": count,
        "density": count / (users * items),
        "average_length": count / users,
    }


def format_row(title: str, row: dict[str, float]) -> str:
    """The row as the paper prints it, with its headings."""
    return (
        f"{title}: {row['users']:,} users, {row['items']:,} items, {row['interactions']:,} interactions, "
        f"density {row['density']:.2%}, average length {row['average_length']:.1f}"
    )
