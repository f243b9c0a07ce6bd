"""A data set's row of the paper's Table 1, and fractions that keep their counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsInt

from tslrec.data.interactions import Interactions


def table1_row(interactions: Interactions) -> dict[str, float]:
    """Number of users, items and interactions, density (a fraction), and average length of a history."""
    users, items, count = interactions.num_users, interactions.num_items, interactions.num_interactions
    return {
        "users": users,
        "items": items,
        "interactions": count,
        "density": count / (users * items),
        "average_length": count / users,
    }


def format_row(title: str, row: dict[str, float]) -> str:
    """The row of `table1_row` as one line of text, rounded as in the paper."""
    return (
        f"{title}: {row['users']:,} users, {row['items']:,} items, {row['interactions']:,} interactions, "
        f"density {row['density']:.2%}, average length {row['average_length']:.1f}"
    )


@dataclass(frozen=True)
class Fraction:
    """A part of a whole, with both counts.

    Attributes:
        count: the part.
        of: the whole.
        share: `count / of`; 0 where `of` is 0.
    """

    count: int
    of: int
    share: float


def fraction(count: SupportsInt, of: SupportsInt) -> Fraction:
    """A `Fraction` from two integers of Python or NumPy."""
    count, of = int(count), int(of)
    return Fraction(count, of, count / of if of else 0.0)
