"""A file of item titles: where it is, and its rows. CSV or Parquet with the columns `item_id` and `title`."""

from __future__ import annotations

import difflib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from tslrec.data.formats.content import packing_of, read_content, require_file, unpack
from tslrec.data.formats.quoting import quoting_of
from tslrec.data.formats.records import read_records
from tslrec.data.formats.separators import LIKELY
from tslrec.data.formats.wording import FileKind, brief, brief_list
from tslrec.settings.data import DataConfig
from tslrec.system.errors import UserError

ID, TITLE = "item_id", "title"
"""The columns of a file of titles; others are ignored."""

BESIDE = "{folder}"
"""In `data.titles`, the folder of the data set's raw file."""

PARQUET_MARK = b"PAR1"
"""How a Parquet file begins."""


def titles_path(data: DataConfig, cache: Path) -> Path | None:
    """Where the file of titles that `data.titles` names is, whether it exists or not; None if it names none.

    Args:
        data: the data set's configuration. A path is relative to the working folder, as `data.path` is. `{folder}`
            stands for the folder of the raw file; of a downloaded one, for `data/NAME` in the cache.
        cache: folder of downloaded files.
    """
    if data.titles is None:
        return None
    folder = cache.expanduser() / "data" / data.name if data.path is None else Path(data.path).expanduser().parent
    return Path(data.titles.replace(BESIDE, str(folder))).expanduser()


def optional_titles_path(data: DataConfig, cache: Path) -> Path | None:
    """As `titles_path`, for readers that need no titles: None also where a file beside the raw file does not exist."""
    path = titles_path(data, cache)
    return None if path is not None and BESIDE in str(data.titles) and not path.exists() else path


def require_titles_file(path: Path, given: str = "data.titles=FILE") -> None:
    """Raises a `UserError` if a file of titles does not exist; `given` says how a person names another one."""
    require_file(path, FileKind("titles", given))


def read_titles_file(path: Path, given: str = "data.titles=FILE") -> pl.DataFrame:
    """Reads all rows of a file of titles; each line is read, passed over because it is blank, or refused by its number.

    Args:
        path: CSV (or separated by tabs, semicolons or bars, as its header shows) or Parquet, compressed or not.
        given: how a person names another file, for messages.

    Returns:
        Columns `raw_id` and `title` (String), in the order of the file. White space within a title, line ends among
        it, is one blank; an empty or blank title is "".

    Raises:
        UserError: if the file cannot be read, lacks a column or a row, or a row has no id.
    """
    kind = FileKind("titles", given)
    require_file(path, kind)
    table = parquet_rows(path) if is_parquet(path) else separated_rows(path, kind)
    if table.is_empty():
        raise UserError(f"{path}: has no titles; give a file with titles with {given}")
    bare = table["raw_id"].is_null() | (table["raw_id"].str.strip_chars() == "").fill_null(True)
    if bare.any():
        line = table["line"][int(bare.arg_max() or 0)]
        raise UserError(f"{path}, line {line}: '{ID}' is empty; fill it, or remove the line")
    title = pl.col("title").fill_null("").str.replace_all(r"\s+", " ").str.strip_chars()
    return table.select("raw_id", title)


def first_titles(rows: pl.DataFrame) -> pl.DataFrame:
    """Of the rows of a file, the first one of each id that has a title."""
    return rows.filter(pl.col("title") != "").unique("raw_id", keep="first", maintain_order=True)


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, compressed or not, or is named so."""
    with path.open("rb") as file:
        head = file.read(8)
    if packing_of(head) is not None:
        head = unpack(path.read_bytes(), path)[:8]
    return head.startswith(PARQUET_MARK) or path.suffix == ".parquet"


def separated_rows(path: Path, kind: FileKind) -> pl.DataFrame:
    """The columns `raw_id`, `title` and `line` (from 1) of separated text."""
    content = read_content(path, kind)
    separator = separator_of_titles(content.data.lstrip().partition(b"\n")[0].decode())

    def choose(names: list[str], where: str) -> tuple[dict[str, int], bool]:
        return {"raw_id": index_of(ID, names, where), "title": index_of(TITLE, names, where)}, True

    def rows(quote: str) -> pl.DataFrame:
        quoting = replace(quoting_of(quote, separator), chosen=False, has_setting=False)
        texts = frozenset({"title"})
        return read_records(
            content, path, separator=separator, quoting=quoting, choose=choose, needed=ID, texts=texts
        ).table

    try:
        return rows("auto")
    except UserError:
        # Quotes mean nothing in a file with tabs by custom. One that is no table without them has them.
        if separator != "\t" or b'"' not in content.data:
            raise
    return rows("double")


def separator_of_titles(header: str) -> str:
    """The separator under which a header has both columns; a comma if none does."""
    for separator in LIKELY:
        names = {name.strip().strip('"') for name in header.split(separator)}
        if len(separator) == 1 and {ID, TITLE} <= names:
            return separator
    return ","


def parquet_rows(path: Path) -> pl.DataFrame:
    """The columns `raw_id`, `title` and `line` (the row's number, from 1) of a Parquet file."""
    try:
        with path.open("rb") as file:
            packed = packing_of(file.read(8)) is not None
        source: Path | io.BytesIO = io.BytesIO(unpack(path.read_bytes(), path)) if packed else path
        names = list(pl.read_parquet_schema(source))
        wanted = [names[index_of(column, names, str(path))] for column in (ID, TITLE)]
        if isinstance(source, io.BytesIO):
            source.seek(0)
        table = pl.read_parquet(source, columns=wanted, hive_partitioning=False, glob=False).select(wanted)
        for column in wanted:
            if table[column].dtype.is_nested() or table[column].dtype == pl.Object:
                raise UserError(f"{path}: '{column}' holds {brief(table[column].dtype)}; convert it to text")
        table = table.rename(dict(zip(wanted, ("raw_id", "title"), strict=True))).cast(pl.String)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = brief(str(error).splitlines()[0], 80)
        raise UserError(f"{path}: is not readable Parquet ({reason}); export it again, or give CSV") from error
    return table.with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + 1).alias("line"))


def index_of(column: str, names: Sequence[str], where: str) -> int:
    """The index of a column.

    Raises:
        UserError: if there is none of that name, or there are several.
    """
    same = [index for index, name in enumerate(names) if name.strip() == column]
    if len(same) == 1:
        return same[0]
    if same:
        raise UserError(f"{where}: has {len(same)} columns '{column}'; rename one of them")
    near = difflib.get_close_matches(column, names, n=1)
    meant = f"; rename '{brief(near[0])}'" if near else "; name the columns so in its first line"
    raise UserError(
        f"{where}: has the columns {brief_list(names)}, but no '{column}'; titles need {ID} and {TITLE}{meant}"
    )
