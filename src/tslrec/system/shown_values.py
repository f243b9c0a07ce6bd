"""Values of a configuration as messages of one line show them."""

from __future__ import annotations

from typing import Any

LONGEST_SHOWN = 60
"""Characters of a value that a message shows."""


def shown(value: Any) -> str:
    """A value as a message shows it: on one line, the middle of a long one left out."""
    if isinstance(value, int) and abs(value) >= 10**20:
        return f"{'-' if value < 0 else ''}1e{len(f'{abs(value):x}') * 1.204:.0f}"
    text = str(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN // 2]}…{text[-LONGEST_SHOWN // 4 :]}"
