"""The result of every reader, and the checks that readers share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from tslrec.data.formats.content import read_content, require_file
from tslrec.data.formats.times import TimeSpan

__all__ = ["Duplicates", "RawInteractions", "Reading", "read_lines", "require_file"]

Duplicates = Literal["refuse", "first", "last"]
"""What happens to rows with the user, item and time of an earlier row: refused, or the first or last one is kept."""


@dataclass(frozen=True)
class Reading:
    """What a reader met in the file.

    Attributes:
        dropped: lines and rows that are not among the interactions, by the reason.
        notes: how the file was read, a sentence each.
        warnings: what seems to be wrong with the data, a sentence each.
        times: what the timestamps say; None without timestamps.
    """

    dropped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    times: TimeSpan | None = None


@dataclass(frozen=True)
class RawInteractions:
    """Interactions as a file has them, in file order.

    Attributes:
        rows: columns `user` and `item` (String, the raw ids), `line` (Int64, the line in the file, from 1) and, if the
            source has timestamps, `timestamp` (Int64 or Float64). Of a folder also `part`, an index into `parts`.
        true_categories: the latent category of each raw item id of generated data; None for real data.
        titles: the title of each raw item id, where the source has titles.
        duplicates: what happens to rows with the user, item and time of an earlier row.
        parts: the names of the files of a folder.
        reading: what the reader met.
    """

    rows: pl.DataFrame
    true_categories: Mapping[str, int] | None = None
    titles: Mapping[str, str] | None = None
    duplicates: Duplicates = "refuse"
    parts: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)

    @property
    def has_timestamps(self) -> bool:
        """Whether the source has timestamps."""
        return "timestamp" in self.rows.columns

    def place(self, where: str, row: Mapping[str, Any]) -> str:
        """The file and the line of a row, for messages."""
        file = f"{where}/{self.parts[row['part']]}" if self.parts else where
        return f"{file}, line {row['line']}"


def read_lines(path: Path) -> pl.DataFrame:
    r"""Reads a text file's lines: columns `text` (String) and `line` (Int64, the line's number, from 1).

    A line is what an editor calls so: it ends with `\n`, `\r\n` or a lone `\r`.

    Raises:
        UserError: if there is no such file, or it is empty, binary or not UTF-8.
    """
    text = pl.read_lines(read_content(path).data, name="text")
    return text.with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + 1).alias("line"))
