"""RecBole's atomic `.inter` format: a header that names and types each column, `user_id:token`, and tabs or commas."""

from __future__ import annotations

from pathlib import Path

from tslrec.data.formats.base import Duplicates, RawInteractions
from tslrec.data.formats.columns import Columns, Missing, Part, interactions_of
from tslrec.data.formats.content import read_content
from tslrec.data.formats.parts import files_of
from tslrec.data.formats.quoting import quoting_of
from tslrec.data.formats.records import read_records
from tslrec.data.formats.separators import likely_separator, name_of, separator_of
from tslrec.data.formats.wording import brief
from tslrec.system.errors import UserError


def read(
    path: Path,
    *,
    user_column: str = "user_id",
    item_column: str = "item_id",
    time_column: str | None = "timestamp",
    separator: str = "tab",
    quote: str | None = "auto",
    rating_column: str | None = None,
    min_rating: float | None = None,
    missing: Missing = "refuse",
    duplicates: Duplicates = "refuse",
) -> RawInteractions:
    """Reads an `.inter` file; all but the named columns are ignored.

    Args:
        path: the file, compressed or not, or a folder of such files.
        user_column: name of the column of users, without its type.
        item_column: name of the column of items, without its type.
        time_column: name of the column of timestamps, without its type; None if the rows are in time order.
        separator: what stands between two fields (RecBole's `field_separator`).
        quote: see `tslrec.data.formats.tables.read_csv`.
        rating_column: name of the column of ratings, which is read for `min_rating` only.
        min_rating: rows with a lower rating are dropped.
        missing: `drop` drops rows without a user or an item.
        duplicates: `first` or `last` keeps one of the rows with the same user, item and time.

    Raises:
        UserError: if the header is not typed, a column is missing, or a time is neither a number nor a date.
    """
    roles = Columns(user_column, item_column, time_column, rating_column, min_rating, missing, duplicates)
    return interactions_of([typed_part(file, roles, separator, quote) for file in files_of(path)], roles, path)


def typed_part(path: Path, roles: Columns, separator: str, quote: str | None) -> Part:
    """One file with a typed header."""
    content = read_content(path)
    header = content.data.lstrip().partition(b"\n")[0].decode()
    separator, notes = separator_of(separator, header), content.notes
    if separator == "\t" and "\t" not in header and header.count(":") == header.count(",") + 1:
        # Several public converters write commas; a typed header tells them beyond doubt.
        separator = ","
        notes += ("Separated by commas, as the header shows.",)
    named = dict[str, str]()

    def choose(first: list[str], where: str) -> tuple[dict[str, int], bool]:
        untyped = [name for name in first if ":" not in name]
        if untyped:
            likely = likely_separator(header)
            seems = f" (this one by {name_of(likely)}, it seems)" if likely not in (None, separator) else ""
            raise UserError(
                f"{where}: '{brief(untyped[0])}' is not typed like user_id:token; an .inter file is separated "
                f"by {name_of(separator)}{seems}: set data.reader.separator, or choose data=csv"
            )
        names = [name.rsplit(":", 1)[0] for name in first]
        indices = roles.indices(names, where)
        named.update((role, names[index]) for role, index in indices.items())
        return indices, True

    records = read_records(
        content, path, separator=separator, quoting=quoting_of(quote, separator), choose=choose, needed=roles.user
    )
    return Part(path, records.table, named, {"blank lines": records.blank}, notes)
