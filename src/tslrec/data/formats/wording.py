"""What error messages call a file, and how they show what it holds: on one line, and never longer than one may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LONGEST = 40
"""Characters of a value that a message shows."""


@dataclass(frozen=True)
class FileKind:
    """What messages call a file of one kind.

    Attributes:
        rows: what it holds.
        given: how a person names another one.
    """

    rows: str
    given: str


INTERACTIONS = FileKind("interactions", "data.path=FILE")


def brief(value: object, longest: int = LONGEST) -> str:
    """A value on one line: control characters escaped, the middle of a long text left out."""
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(value))
    return text if len(text) <= longest else f"{text[: longest - 12]}…{text[-11:]}"


def brief_list(values: Iterable[object], longest: int = 90) -> str:
    """Several values with commas between them; those that do not fit are counted instead."""
    texts = [brief(value, 24) for value in values]
    shown: list[str] = []
    while len(shown) < len(texts) and len(", ".join([*shown, texts[len(shown)]])) <= longest:
        shown.append(texts[len(shown)])
    left = len(texts) - len(shown)
    return ", ".join(shown) + (f" and {left:,} more" if left else "")
