"""Quoted fields of separated text: which lines are rows on their own, and which rows go over several lines.

By RFC 4180 a field that begins with the quote character ends with it, and a quote within it is doubled. A quote that is
not closed swallows the rows after it; such a field is refused with its line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from tslrec.system.errors import UserError

MAX_LINES = 200
"""Lines that a quoted field may go over."""
WORDS = {"none": None, "double": '"', "single": "'"}
"""Names of quote characters that are hard to type on a command line."""

# A field above Python's own limit of 131,072 signs would look like one that is not closed.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Quoting:
    """What quotes mean in a file.

    Attributes:
        character: the quote character; None: quotes are signs like any other.
        chosen: whether a person chose it; then a field over several lines is believed.
        strips_pairs: whether a field that is wholly within quotes, in a file without quoting, is read without them.
        has_setting: whether `data.reader.quote` can change it.
    """

    character: str | None
    chosen: bool = False
    strips_pairs: bool = False
    has_setting: bool = True


def quoting_of(setting: str | None, separator: str) -> Quoting:
    """What `data.reader.quote` means. `auto`: tab-separated files have no quoting by custom, others have.

    Raises:
        UserError: if it is not one character.
    """
    if setting == "auto":
        return Quoting(None, strips_pairs=True) if separator == "\t" or len(separator) > 1 else Quoting('"')
    character = None if setting is None else WORDS.get(setting, setting)
    if character is not None and (len(character) != 1 or not character.isascii() or character in separator + "\n\r"):
        raise UserError(f"data.reader.quote={setting}: must be one character, double, single, none or auto")
    return Quoting(character, chosen=True)


def not_closed(quoting: Quoting) -> str:
    """What is wrong with a field whose quotes are not right, and what to do."""
    remedy = ", or set data.reader.quote=none if quotes mean nothing in this file" if quoting.has_setting else ""
    return f"a quote is not closed, or goes on after its end; correct it{remedy}"


def well_quoted(separator: str, quote: str) -> str:
    """A regular expression of a line that is a row on its own, in which quotes stand around whole fields only."""
    q, s = re.escape(quote), re.escape(separator)
    field = f"(?:{q}(?:[^{q}]|{q}{q})*{q}|[^{q}{s}]*)"
    return f"^{field}(?:{s}{field})*$"


def fields_beside_quotes(lines: pl.Series, separator: str, quote: str) -> pl.Series:
    """Number of separators outside of quotes in each line, for well-quoted lines."""
    q = re.escape(quote)
    return lines.str.replace_all(f"{q}(?:[^{q}]|{q}{q})*{q}", "").str.count_matches(separator, literal=True)


@dataclass(frozen=True)
class Record:
    """A row that was read on its own.

    Attributes:
        line: index of its first line, from 0.
        lines: number of its lines.
        fields: its fields.
    """

    line: int
    lines: int
    fields: list[str]


def odd_records(
    lines: pl.Series, odd: list[int], *, first_line: int, separator: str, quoting: Quoting, width: int, path: Path
) -> Iterator[Record]:
    """Reads the rows that begin in lines that are not rows on their own.

    Args:
        lines: all lines.
        odd: indices of the lines that are not well quoted, ascending. Those within an earlier row are passed over.
        first_line: number of the first of the lines in the file.
        separator: between fields; one character.
        quoting: with a quote character.
        width: fields of a row.
        path: the file, for error messages.

    Raises:
        UserError: if a quote is not closed, or seems to swallow rows.
    """
    done = 0
    for start in odd:
        if start < done:
            continue
        text = lines.slice(start, MAX_LINES).to_list()
        rows = csv.reader((f"{line}\n" for line in text), delimiter=separator, quotechar=quoting.character, strict=True)
        try:
            fields = next(rows)
        except csv.Error as error:
            raise UserError(f"{path}, line {first_line + start}: {not_closed(quoting)}") from error
        taken = text[: rows.line_num]
        like_rows = sum(looks_like_row(line, separator, quoting, width) for line in taken)
        if len(taken) > 1 and not quoting.chosen and 2 * like_rows > len(taken):
            remedy = ", set data.reader.quote=none if quotes mean nothing here, or =double if the field is right"
            raise UserError(
                f"{path}, line {first_line + start}: a quote swallows {len(taken) - 1} lines that look like rows; "
                f"close it{remedy if quoting.has_setting else ', or write the field on one line'}"
            )
        done = start + len(taken)
        yield Record(start, len(taken), fields)


def looks_like_row(line: str, separator: str, quoting: Quoting, width: int) -> bool:
    """Whether a line has the separators of a row.

    Where no setting can say that a field is right, separators before a blank count as those of prose.
    """
    of_prose = 0 if quoting.has_setting else line.count(f"{separator} ")
    return line.count(separator) - of_prose >= width - 1


def unquoted(name: str) -> pl.Expr:
    """A column's fields, without the quotes around those that are wholly within quotes."""
    field = pl.col(name)
    pair = field.str.contains('^"(?:[^"]|"")*"$')
    inside = field.str.strip_prefix('"').str.strip_suffix('"').str.replace_all('""', '"', literal=True)
    return pl.when(pair).then(inside).otherwise(field).alias(name)
