"""Separators of several bytes, such as `::`: one byte stands for each of them while the text is read."""

from __future__ import annotations

from pathlib import Path

from tslrec.data.formats.lines import LINE_END
from tslrec.data.formats.wording import brief
from tslrec.system.errors import UserError

UNUSED = (b"\x1f", b"\x1e", b"\x1d", b"\x1c", b"\x01", b"\x02")
"""Characters one of which replaces a separator of several bytes; no text file holds all of them."""


def with_short_separators(data: bytes, separator: str, path: Path) -> tuple[bytes, str]:
    """Replaces the separators of a text, also those within quotes, by a character that it does not hold.

    Args:
        data: the text.
        separator: one character or several.
        path: the file, for error messages.

    Returns:
        The text, and what separates it: a character of one byte, `separator` itself if it is one.

    Raises:
        UserError: if the text holds all characters that could stand for it, or separators overlap.
    """
    long = separator.encode()
    if len(long) <= 1:
        return data, separator
    mark = next((each for each in UNUSED if each not in data), None)
    if mark is None or LINE_END in long:
        raise UserError(f"data.reader.separator={brief(separator)}: cannot be read in {path}; give one character")
    data = data.replace(long, mark)
    refuse_overlaps(data, mark, long, path)
    return data, mark.decode()


def refuse_overlaps(data: bytes, mark: bytes, separator: bytes, path: Path) -> None:
    """Refuses a line where a separator such as `::` could also begin one sign later, as in `a:::b`.

    Args:
        data: the text, with `mark` in place of the separators.
        mark: one byte.
        separator: several bytes.
        path: the file, for error messages.
    """
    for border in range(1, len(separator)):
        if separator[:border] == separator[-border:]:
            found = data.find(mark + separator[border:])
            if found >= 0:
                line = data.count(LINE_END, 0, found) + 1
                raise UserError(
                    f"{path}, line {line}: has separators {brief(separator.decode())} that overlap, so its fields "
                    "cannot be told apart; correct the line, or use another separator"
                )
