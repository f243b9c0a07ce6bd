"""Checks of the numbers that a module is built with: a wrong one is refused where it is given, not in a product."""

from __future__ import annotations

MOST_LAYERS = 1000
"""The largest number of layers; building many more takes minutes."""


def require_positive(**numbers: int) -> None:
    """Checks that sizes and counts are 1 or more, and numbers of layers 1000 at most.

    Raises:
        ValueError: naming the first that is not.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be 1 or more, not {number}")
        if name == "num_layers" and number > MOST_LAYERS:
            raise ValueError(f"{name} must be {MOST_LAYERS} at most, not {number}")


def require_probability(**numbers: float) -> None:
    """Checks that probabilities of dropping something are in [0, 1).

    Raises:
        ValueError: naming the first that is not.
    """
    for name, number in numbers.items():
        if not 0 <= number < 1:
            raise ValueError(f"{name} must be 0 or more and below 1, not {number}")


def require_divisor(*, divisor: str, by: int, of: str, number: int) -> None:
    """Checks that one number divides another.

    Args:
        divisor: the name of the number that must divide.
        by: that number, 1 or more.
        of: the name of the number that is divided.
        number: that number.

    Raises:
        ValueError: naming both.
    """
    if number % by:
        raise ValueError(f"{divisor} {by} must divide {of} {number}")
