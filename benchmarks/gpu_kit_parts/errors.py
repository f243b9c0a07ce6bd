"""What ends a packing or an unpacking."""

from __future__ import annotations


class KitError(Exception):
    """The kit cannot be packed or unpacked; the message is one line that says what to do."""
