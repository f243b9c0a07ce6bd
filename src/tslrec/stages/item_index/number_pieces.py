"""Numbers as texts of few tokens: pieces of two digits from the left, and a last one where a digit is left over."""

from __future__ import annotations

NUMBER_PIECES = (*(f"{digit}" for digit in range(10)), *(f"{pair:02d}" for pair in range(100)))
"""The texts of all pieces: `0` … `9`, then `00` … `99`."""


def pieces_of_number(number: int) -> tuple[int, ...]:
    """The pieces of a number, as places in `NUMBER_PIECES`.

    Two numbers never have the same pieces.

    Args:
        number: 0 or more.
    """
    digits = str(number)
    return tuple(
        int(digits[place : place + 2]) + (10 if place + 2 <= len(digits) else 0) for place in range(0, len(digits), 2)
    )
