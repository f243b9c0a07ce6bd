"""The terminal, as everything here prints on it: text stands as it is."""

from __future__ import annotations

from typing import Any

from rich.console import Console


def plain_console(**options: Any) -> Console:
    """A console that reads no markup, no emoji names and no colours into what it prints.

    Ids, titles and paths hold brackets and colons: "[red]" or ":cat:" in one of them would vanish or turn into a sign,
    and "[/a]" would raise.

    Args:
        options: others of rich's console, such as `stderr` or `width`.
    """
    return Console(markup=False, emoji=False, highlight=False, **options)
