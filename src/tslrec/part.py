"""A count beside what it is a part of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import SupportsInt


@dataclass(frozen=True)
class Part:
    """How many of how many; `share` is their quotient, 0 where there are none at all."""

    count: int
    of: int
    share: float


def part(count: SupportsInt, of: SupportsInt) -> Part:
    """The part with its share, from numbers of Python's or NumPy's."""
    count, of = int(count), int(of)
    return Part(count, of, count / of if of else 0.0)
