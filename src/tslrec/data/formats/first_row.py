"""The first row of separated text, which tells the columns and how many fields a row has."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl

from tslrec.data.formats.lines import LINE_END
from tslrec.data.formats.quoting import MAX_LINES, Quoting, not_closed, unquoted
from tslrec.data.formats.separators import likely_separator, name_of
from tslrec.data.formats.wording import brief
from tslrec.system.errors import UserError


def first_record(data: bytes, index: int, separator: str, quoting: Quoting, path: Path) -> tuple[list[str], int]:
    """The fields of the row that begins in line `index`, and the index of the line after it."""
    position = 0
    for _ in range(index):
        position = data.find(LINE_END, position) + 1
    text = []
    for _ in range(MAX_LINES):
        end = data.find(LINE_END, position)
        text.append(data[position : len(data) if end < 0 else end].decode())
        if end < 0 or quoting.character is None:
            break
        position = end + 1
    if quoting.character is None:
        fields = text[0].split(separator)
        if quoting.strips_pairs:
            fields = pl.DataFrame({"f": fields}).select(unquoted("f"))["f"].to_list()
        return fields, index + 1
    rows = csv.reader((f"{line}\n" for line in text), delimiter=separator, quotechar=quoting.character, strict=True)
    try:
        return next(rows), index + rows.line_num
    except csv.Error as error:
        raise UserError(f"{path}, line {index + 1}: {not_closed(quoting)}") from error


def refuse_one_column(field: str, separator: str, where: str, needed: str | int, quoting: Quoting) -> None:
    """Refuses a first line that the separator does not separate, with the one that it seems to have."""
    likely = likely_separator(field)
    if likely is None or not quoting.has_setting:
        remedy = "; give a table of at least two columns"
    else:
        remedy = f"; it seems to be separated by {name_of(likely)}: set data.reader.separator={name_of(likely)}"
    raise UserError(
        f"{where}: has no separator {name_of(separator)}, so no column '{needed}', only '{brief(field)}'{remedy}"
    )
