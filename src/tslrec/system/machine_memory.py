"""How much memory this machine, or the container that the program runs in, has."""

from __future__ import annotations

import os
from pathlib import Path

GIB = 2**30
"""Bytes of one GiB."""

CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux says how much memory a container may use."""


def memory_bytes() -> int | None:
    """Bytes of memory of this machine or container, swap not counted; None where the system does not tell."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    for path in CONTAINER_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            found = min(found, int(text))
    return found


def in_gib(size: float) -> str:
    """A size in bytes as text, `12.3 GiB`."""
    return f"{size / GIB:,.1f} GiB"
