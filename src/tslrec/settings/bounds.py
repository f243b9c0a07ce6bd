"""Fields of the configuration whose bounds or choices stand beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any

MOST = 2**31 - 1
"""The largest number of anything that is counted: the largest 32-bit integer."""

LONGEST = 100_000
"""The largest length of an input, in items."""


def bounded(
    default: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    meaning: str | None = None,
) -> Any:
    """A field with a number; null is allowed where it is typed.

    Args:
        default: the field's default.
        least: it is at least this.
        above: it is more than this.
        most: it is at most this; a whole number with no such bound is at most `MOST`.
        below: it is less than this.
        meaning: what the number is, for the message that refuses another one.
    """
    if most is None and below is None and above is None and isinstance(least, int) and not isinstance(default, float):
        most = MOST
    bounds = {"least": least, "above": above, "most": most, "below": below, "meaning": meaning}
    return field(default=default, metadata=bounds)


def one_of(default: str | None, choices: Sequence[str]) -> Any:
    """A field with one of some words; null is allowed where it is typed."""
    return field(default=default, metadata={"choices": tuple(choices)})
