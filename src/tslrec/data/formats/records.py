"""Reads separated text into columns of strings; each line is read, counted as blank, or refused with its number.

Polars parses the fields. What it would pass over in silence (rows that are too short or too long, quotes that swallow
lines) is found beforehand, by counting separators in each line.

Shapes: L lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tslrec.data.formats.content import Content
from tslrec.data.formats.first_row import first_record, refuse_one_column
from tslrec.data.formats.lines import first_text_line, line_ends, next_text_line, separators_of_lines
from tslrec.data.formats.long_separators import with_short_separators
from tslrec.data.formats.quoting import Quoting, Record, fields_beside_quotes, odd_records, unquoted, well_quoted
from tslrec.data.formats.separators import name_of
from tslrec.data.formats.wording import brief
from tslrec.system.errors import UserError


@dataclass(frozen=True)
class Records:
    """The rows of a file, as strings.

    Attributes:
        table: the wanted columns under the wanted names, and `line` (Int64, from 1).
        blank: lines without any text, which were passed over.
        first: the fields of the first line that is a row; None if the file has none.
    """

    table: pl.DataFrame
    blank: int
    first: list[str] | None


Choose = Callable[[list[str], str], tuple[dict[str, int], bool]]
"""From the first line's fields and place: the index of each wanted column by its name, and whether it is a header."""


def read_records(
    content: Content,
    path: Path,
    *,
    separator: str,
    quoting: Quoting,
    choose: Choose,
    needed: str | int,
    texts: frozenset[str] = frozenset(),
) -> Records:
    """Reads the wanted columns.

    Args:
        content: the file's text.
        path: the file, for error messages.
        separator: between fields: one character or several.
        quoting: what quotes mean.
        choose: names the wanted columns.
        needed: the first of them, as the settings name it, for error messages.
        texts: those whose quoted fields may go on over several lines; the others hold ids and numbers.

    Raises:
        UserError: for the first line that is no row.
    """
    shown = separator
    data, separator = with_short_separators(content.data, separator, path)
    start = first_text_line(data)
    first, after = first_record(data, start, separator, quoting, path)
    first = [name.replace(separator, shown) for name in first]
    if len(first) == 1:
        refuse_one_column(first[0], shown, f"{path}, line {start + 1}", needed, quoting)
    wanted, has_header = choose(first, f"{path}, line {start + 1}")
    names = sorted(wanted.values())
    spanning = frozenset(wanted[name] for name in texts)
    reading = Reading(data, path, separator, shown, quoting, len(first), start + 1, spanning)
    begin = next_text_line(data, after) if has_header else start
    if begin is None:
        raise UserError(f"{path}: has a header, but no {content.kind.rows}; give a file with {content.kind.rows}")
    table, blank = reading.rows(begin, names)
    renamed = table.select([pl.col(f"f{index}").alias(name) for name, index in wanted.items()] + [pl.col("line")])
    row = first_record(data, begin, separator, quoting, path)[0]
    if separator != shown:
        # Those that are left stood within quotes.
        renamed = renamed.with_columns(pl.col(pl.String).str.replace_all(separator, shown, literal=True))
        row = [field.replace(separator, shown) for field in row]
    return Records(renamed, blank + (begin - (after if has_header else start)) + start, row)


@dataclass(frozen=True)
class Reading:
    """How the lines of one file are read.

    Attributes:
        data: the text.
        path: the file, for error messages.
        separator: one byte.
        shown: the separator as the file has it.
        quoting: what quotes mean.
        width: fields of the first line.
        first: that line's number, from 1.
        spanning: indices of the fields that may go on over several lines.
    """

    data: bytes
    path: Path
    separator: str
    shown: str
    quoting: Quoting
    width: int
    first: int
    spanning: frozenset[int] = frozenset()

    def rows(self, begin: int, indices: Sequence[int]) -> tuple[pl.DataFrame, int]:
        """The fields `f0`, `f1` … that are wanted, from line index `begin` on, and the number of blank lines."""
        quote = self.quoting.character
        if quote is None or quote.encode() not in self.data:
            separators_L = separators_of_lines(self.data, self.separator)[begin:]
            odd: list[int] = []
            lines = None
        else:
            lines = pl.read_lines(self.data).to_series().slice(begin)
            separators_L, odd = self.separators_beside_quotes(lines, quote)
        width, blank_L = self.true_width(begin, separators_L, odd)
        data = self.data
        records: list[Record] = []
        if odd and lines is not None:
            records = list(
                odd_records(
                    lines,
                    odd,
                    first_line=begin + 1,
                    separator=self.separator,
                    quoting=self.quoting,
                    width=self.width,
                    path=self.path,
                )
            )
            data, blank_L = self.without(records, lines, blank_L)
            begin_of_data = 0
        else:
            begin_of_data = begin
        self.refuse_ragged(begin, separators_L, width, blank_L, odd)
        table = self.parsed(data, begin_of_data, width, [*indices, *([self.width] if width > self.width else [])])
        table = table.with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + (begin + 1)).alias("line"))
        if blank_L.any():
            table = table.filter(pl.Series(~blank_L))
        if records:
            table = self.with_records(table, records, begin, indices)
        if width > self.width:
            self.refuse_more_fields(table)
        hidden = sum(record.lines for record in records)
        return table, int(blank_L.sum()) - hidden

    def parsed(self, data: bytes, begin: int, width: int, indices: Sequence[int]) -> pl.DataFrame:
        """The fields with the given indices; each line is a row."""
        quote = self.quoting.character
        try:
            table = pl.read_csv(
                data,
                has_header=False,
                skip_lines=begin,
                separator=self.separator,
                quote_char=quote if quote is not None and quote.encode() in data else None,
                columns=sorted(set(indices)),
                schema={f"f{index}": pl.String for index in range(width)},
                empty_string_is_null=False,
            )
        except pl.exceptions.PolarsError as error:
            reason = brief(str(error).splitlines()[0], 80)
            raise UserError(
                f"{self.path}: cannot be read as a table ({reason}); correct it, or export it again"
            ) from error
        if self.quoting.strips_pairs and b'"' in data:
            table = table.with_columns(unquoted(name) for name in table.columns)
        return table

    def separators_beside_quotes(self, lines: pl.Series, quote: str) -> tuple[NDArray[np.int32], list[int]]:
        """The separators of each well-quoted line, and the indices of the other lines, whose count is 0."""
        counts_L = lines.str.count_matches(self.separator, literal=True).to_numpy().astype(np.int32)
        quoted_L = lines.str.contains(quote, literal=True).to_numpy()
        quoted = lines.filter(pl.Series(quoted_L))
        well = quoted.str.contains(well_quoted(self.separator, quote)).to_numpy()
        counts = fields_beside_quotes(quoted, self.separator, quote).to_numpy().astype(np.int32)
        counts_L[quoted_L] = np.where(well, counts, 0)
        return counts_L, np.flatnonzero(quoted_L)[~well].tolist()

    def true_width(self, begin: int, separators_L: NDArray[np.int32], odd: list[int]) -> tuple[int, NDArray[np.bool_]]:
        """Fields of a row, and which lines are blank.

        All rows but the header may end with one more separator, whose field is empty.
        """
        blank_L = np.zeros(len(separators_L), dtype=bool)
        bare = np.setdiff1d(np.flatnonzero(separators_L == 0), odd, assume_unique=True)
        if len(bare):
            text = self.line_texts(bare + begin)
            blank_L[bare] = [not line.strip() for line in text]
        rows_L = ~blank_L
        rows_L[odd] = False
        longer = bool(rows_L.any()) and bool((separators_L[rows_L] == self.width).all()) and not odd
        return self.width + longer, blank_L

    def line_texts(self, indices: NDArray[np.int64]) -> list[bytes]:
        """The text of lines."""
        ends = line_ends(self.data)
        starts = np.concatenate([[0], ends + 1])
        ends = np.concatenate([ends, [len(self.data)]])
        return [self.data[starts[index] : ends[index]] for index in indices]

    def without(
        self, records: list[Record], lines: pl.Series, blank_L: NDArray[np.bool_]
    ) -> tuple[bytes, NDArray[np.bool_]]:
        """The text with a blank row in place of each line of a record that is read on its own."""
        inside_L = np.zeros(len(lines), dtype=bool)
        for record in records:
            inside_L[record.line : record.line + record.lines] = True
        placeholder = self.separator * (self.width - 1)
        kept = pl.select(pl.when(pl.Series(inside_L)).then(pl.lit(placeholder)).otherwise(lines)).to_series()
        # Ended like the others, or a blank last line would be no row.
        return f"{kept.str.join(chr(10)).item()}\n".encode(), blank_L | inside_L

    def with_records(
        self, table: pl.DataFrame, records: list[Record], begin: int, indices: Sequence[int]
    ) -> pl.DataFrame:
        """The table with the rows that were read on their own, in the order of their lines."""
        for record in records:
            if len(record.fields) != self.width:
                self.refuse_width(begin + record.line, len(record.fields))
        own = {f"f{index}": [record.fields[index] for record in records] for index in sorted(set(indices))}
        lines = [begin + record.line + 1 for record in records]
        for index in sorted(set(indices) - self.spanning):
            for value, line in zip(own[f"f{index}"], lines, strict=True):
                if "\n" in value:
                    remedy = ", or set data.reader.quote=none" if self.quoting.has_setting else ""
                    raise UserError(
                        f"{self.path}, line {line}: field {index + 1} goes on to the next line "
                        f"({self.as_given(value)}), and is no id; correct the quotes{remedy}"
                    )
        frame = pl.DataFrame({**own, "line": lines}, schema=table.schema)
        return pl.concat([table, frame]).sort("line")

    def as_given(self, value: str) -> str:
        """A field as the file has it, for error messages."""
        return brief(value.replace(self.separator, self.shown))

    def refuse_ragged(
        self, begin: int, separators_L: NDArray[np.int32], width: int, blank_L: NDArray[np.bool_], odd: list[int]
    ) -> None:
        """Refuses the first line that has too few or too many fields; lines of odd records are not looked at."""
        bad_L = (separators_L != width - 1) & ~blank_L
        bad_L[odd] = False
        if bad_L.any():
            line = int(bad_L.argmax())
            self.refuse_width(begin + line, int(separators_L[line]) + 1)

    def refuse_width(self, index: int, found: int) -> None:
        """Refuses a line that has another number of fields than the first line."""
        quoted = self.quoting.character is None and b'"' in self.data
        remedy = "set data.reader.quote=double if quotes enclose separators" if quoted else "set data.reader.separator"
        if not self.quoting.has_setting:
            remedy = f"enclose fields that hold a {name_of(self.shown)} in double quotes"
        raise UserError(
            f"{self.path}, line {index + 1}: has {found} fields, but line {self.first} has {self.width} (separator "
            f"{name_of(self.shown)}); correct the line, or {remedy}"
        )

    def refuse_more_fields(self, table: pl.DataFrame) -> None:
        """Refuses a row whose field behind the header's last one holds anything."""
        more = table.filter(pl.col(f"f{self.width}") != "")
        if len(more):
            self.refuse_width(int(more["line"][0]) - 1, self.width + 1)
