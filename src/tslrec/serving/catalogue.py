"""The items that a recommender knows: raw ids, titles and popularity; and the way from a raw id to an item's number.

Shapes: N raw ids, I items (item 0 is padding).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from numbers import Integral
from typing import Any

import numpy as np
import polars as pl

from tslrec.serving.engine import Ids
from tslrec.system.errors import UserError

UNKNOWN = -1
"""The number of a raw id that the catalogue lacks."""


class Catalogue:
    """Raw ids are text. An integer stands for its digits: 7 and "7" are the same id.

    Args:
        items: one row per item, row 0 for padding: `raw_id` (String), `title` (String, null without one) and `count`
            (Int64, how often the item occurs in the data).
    """

    def __init__(self, items: pl.DataFrame) -> None:
        self.items = items

    @property
    def num_items(self) -> int:
        """I; padding is not counted."""
        return len(self.items) - 1

    @property
    def raw_ids(self) -> pl.Series:
        """The raw id of each item; row 0 is padding."""
        return self.items["raw_id"]

    @property
    def has_titles(self) -> bool:
        """Whether any item has a title."""
        return self.items["title"].null_count() < len(self.items)

    @cached_property
    def numbers(self) -> pl.DataFrame:
        """Columns `raw_id` and `item`, for joins."""
        return self.items.select("raw_id").with_row_index("item").slice(1).cast({"item": pl.Int64})

    @cached_property
    def by_raw_id(self) -> dict[str, int]:
        """The number of each raw id; made when a request with few ids asks for it."""
        return {raw_id: item for item, raw_id in enumerate(self.raw_ids) if item > 0}

    @cached_property
    def most_popular(self) -> Ids:
        """Items, the most frequent first; of equally frequent ones the lower number is first."""
        counts_I = self.items["count"].to_numpy()
        return np.argsort(-counts_I[1:], kind="stable") + 1

    def find(self, raw_ids: pl.Series) -> Ids:
        """The number of each raw id, `[N]`; `UNKNOWN` for one that the catalogue lacks.

        Args:
            raw_ids: text.
        """
        if len(raw_ids) < 10_000:
            get = self.by_raw_id.get
            return np.fromiter((get(each, UNKNOWN) for each in raw_ids), dtype=np.int64, count=len(raw_ids))
        wanted = pl.DataFrame({"raw_id": raw_ids})
        joined = wanted.join(self.numbers, on="raw_id", how="left", maintain_order="left")
        return joined["item"].fill_null(UNKNOWN).to_numpy()

    def require(self, raw_ids: Iterable[Any], what: str) -> Ids:
        """As `find`, for ids that must all be known.

        Args:
            raw_ids: text or integers.
            what: names the argument in the message.

        Raises:
            UserError: for the first id that is unknown or of another type.
        """
        texts = as_texts(list(raw_ids), what)
        items_N = self.find(texts)
        if (items_N == UNKNOWN).any():
            missing = texts[int(np.argmax(items_N == UNKNOWN))]
            raise UserError(f"{what}: the catalogue has no item {missing!r}; it has {self.num_items:,} others")
        return items_N

    def search(self, text: str, limit: int) -> list[dict[str, Any]]:
        """Items whose title or raw id contains each word of a text, the most popular first.

        Args:
            text: words; upper and lower case are the same.
            limit: the most items that are returned.

        Returns:
            `item` (raw id), `title` and `count` of each.
        """
        haystack = pl.concat_str(pl.col("title").fill_null(""), pl.lit(" "), pl.col("raw_id")).str.to_lowercase()
        found = self.items.slice(1)
        for word in text.lower().split():
            found = found.filter(haystack.str.contains(word, literal=True))
        return described(found.sort("count", descending=True, maintain_order=True).head(limit))

    def named(self, raw_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Items by their raw ids, in this order; ids that the catalogue lacks are left out.

        Args:
            raw_ids: text.

        Returns:
            As of `search`.
        """
        items_N = self.find(pl.Series(raw_ids, dtype=pl.String))
        return described(self.items[items_N[items_N != UNKNOWN]])


def described(items: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of a catalogue as `item` (raw id), `title` and `count`."""
    return items.select(pl.col("raw_id").alias("item"), "title", "count").to_dicts()


def as_texts(raw_ids: Sequence[Any] | pl.Series, what: str) -> pl.Series:
    """Raw ids as text; integers become their digits.

    Args:
        raw_ids: text or integers.
        what: names the argument in the message.

    Raises:
        UserError: if one is of another type, such as 7.0 or null.
    """
    if not isinstance(raw_ids, pl.Series):
        for each in raw_ids:
            if not isinstance(each, str | Integral) or isinstance(each, bool):
                raise UserError(
                    f"{what}: {each!r} is no raw id; ids are text or integers, as the training data have them"
                )
        return pl.Series([str(each) for each in raw_ids], dtype=pl.String)
    if raw_ids.dtype == pl.String or raw_ids.dtype.is_integer() or raw_ids.dtype == pl.Categorical:
        texts = raw_ids.cast(pl.String)
        if texts.null_count():
            raise UserError(f"{what}: an id is null; ids are text or integers, as the training data have them")
        return texts
    if raw_ids.dtype == pl.Null and not len(raw_ids):
        return raw_ids.cast(pl.String)
    raise UserError(f"{what}: holds {raw_ids.dtype}; ids are text or integers, as the training data have them")
