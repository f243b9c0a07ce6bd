"""A trained recommender for everyday use: raw ids in, frames with raw ids out.

Shapes: U users, B users of a batch, I items, K places of a list, C candidates, E size of a user vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from tslrec.serving.catalogue import Catalogue
from tslrec.serving.engine import Engine, Floats, Ids
from tslrec.serving.histories import Histories, HistoriesLike, encode
from tslrec.serving.nearest import nearest
from tslrec.system.errors import UserError

BATCH_SIZE = 512
"""Users that are computed together; as in an evaluation, so that scores agree to the last bit."""

LIST_LENGTH = "list_length"
"""Among a recommender's facts the number of items of a list, where a method generates lists of one length."""

COLD = ("popular", "refuse", "skip")
"""What users without a known item get; see `Recommender.recommend`."""


class Recommender:
    """A trained recommender; make one with `tslrec.load`.

    Args:
        engine: computes scores.
        catalogue: raw ids, titles and popularity of the items.
        facts: what the recommender is: method, backbone, data, metrics (see docs/recommending.md).

    Attributes:
        engine: see above.
        catalogue: see above.
        facts: see above.

    Raises:
        UserError: if the engine has other items than the catalogue.
    """

    def __init__(self, engine: Engine, catalogue: Catalogue, facts: Mapping[str, Any]) -> None:
        if engine.num_items != catalogue.num_items:
            raise UserError(f"a table of {engine.num_items:,} items, but raw ids of {catalogue.num_items:,}")
        self.engine = engine
        self.catalogue = catalogue
        self.facts = dict(facts)

    def __repr__(self) -> str:
        what = " ".join(str(self.facts[name]) for name in ("method", "model", "data") if name in self.facts)
        return f"Recommender({what}, {self.catalogue.num_items:,} items, {self.engine.name})"

    def recommend(
        self,
        histories: HistoriesLike,
        k: int = 10,
        *,
        filter_seen: bool = True,
        only: Iterable[Any] | None = None,
        without: Iterable[Any] | None = None,
        unknown_items: str = "drop",
        cold: str = "popular",
        batch_size: int = BATCH_SIZE,
    ) -> pl.DataFrame:
        """The K best items for each user.

        Args:
            histories: a list of lists of raw ids, oldest first; a mapping from user to such a list; a polars or pandas
                frame, or the path of a Parquet file, with the columns `user` and `items` (lists) or `user` and `item`
                (each user's rows in time order).
            k: length of the lists, at most the number of items.
            filter_seen: leave out the items of the history: the ranking protocol `masked`. False: `unmasked`.
            only: raw ids that alone may be recommended.
            without: raw ids that must not be recommended.
            unknown_items: items of a history that the catalogue lacks: `drop` ignores them, `refuse` is an error.
            cold: users without a known item: `popular` gets the items that occur most often, without scores; `skip`
                leaves the users out; `refuse` is an error.
            batch_size: users that are computed together.

        Returns:
            Columns `user`, `item`, `score` and `rank` (from 1), in the order of the histories. A user with fewer than K
            candidates has fewer rows.

        Raises:
            UserError: if an argument is out of range, or an id is unknown and that is refused.
        """
        self.check_length(k)
        encoded = encode(histories, self.catalogue, unknown_items=unknown_items)
        candidates_C = self.candidates(only, without)
        ids_UK, scores_UK = self.best_items(
            encoded, k, filter_seen=filter_seen, candidates_C=candidates_C, cold=cold, batch_size=batch_size
        )
        return self.frame(encoded.users, ids_UK, scores_UK)

    def best_items(
        self,
        histories: Histories,
        k: int,
        *,
        filter_seen: bool = True,
        candidates_C: Ids | None = None,
        cold: str = "popular",
        batch_size: int = BATCH_SIZE,
    ) -> tuple[Ids, Floats]:
        """As `recommend`, in item numbers.

        Returns:
            Ids `[U, K]`, 0 for an empty place, and scores `[U, K]`, NaN for items that were not scored.
        """
        if cold not in COLD:
            raise UserError(f"cold={cold}: must be one of {', '.join(COLD)}")
        ids_UK = np.zeros((len(histories), k), dtype=np.int64)
        scores_UK = np.full((len(histories), k), np.nan, dtype=np.float32)
        cold_users = np.flatnonzero(histories.lengths == 0)
        if len(cold_users) and cold == "refuse":
            raise UserError(
                f"histories: user {histories.users[int(cold_users[0])]} has no item that the catalogue knows; set "
                "cold=popular or cold=skip"
            )
        if candidates_C is None or len(candidates_C):
            for users_B, batch in histories.batches(self.engine.max_len, batch_size, filter_seen=filter_seen):
                ids_UK[users_B], scores_UK[users_B] = self.engine.best_items(batch, k, candidates_C)
        if cold == "popular":
            popular = self.popular(k, candidates_C)
            ids_UK[cold_users, : len(popular)] = popular
        return ids_UK, scores_UK

    def similar(
        self,
        items: Iterable[Any],
        k: int = 10,
        *,
        only: Iterable[Any] | None = None,
        without: Iterable[Any] | None = None,
    ) -> pl.DataFrame:
        """The K items nearest to each of some items, by the cosine of their vectors; an item is not near itself.

        Args:
            items: raw ids.
            k: length of the lists, at most the number of items.
            only: raw ids that alone may be listed.
            without: raw ids that must not be listed.

        Returns:
            Columns `item`, `similar`, `cosine` and `rank` (from 1).

        Raises:
            UserError: if an id is unknown, or `k` is out of range.
        """
        self.check_length(k)
        rows = self.catalogue.require(items, "items")
        candidates_C = self.candidates(only, without)
        length = min(k, self.catalogue.num_items if candidates_C is None else len(candidates_C))
        found_NK, cosines_NK = nearest(self.unit_vectors, rows, candidates_C, length)
        found = pl.DataFrame(
            {
                "item": self.catalogue.raw_ids.gather(np.repeat(rows, length)),
                "similar": self.catalogue.raw_ids.gather(found_NK.ravel()),
                "cosine": cosines_NK.ravel(),
                "rank": np.tile(np.arange(1, length + 1, dtype=np.int32), len(rows)),
            }
        )
        return found.filter(pl.col("cosine") > -np.inf)

    def score(
        self, histories: HistoriesLike, candidates: Iterable[Any], *, unknown_items: str = "drop"
    ) -> pl.DataFrame:
        """The score of each candidate for each user.

        Args:
            histories: see `recommend`; every user needs a known item.
            candidates: raw ids.
            unknown_items: see `recommend`.

        Returns:
            Columns `user`, `item` and `score`, candidates in their order.

        Raises:
            UserError: if a candidate is unknown, or a user has no known item.
        """
        rows = self.catalogue.require(candidates, "candidates")
        encoded = self.warm(histories, unknown_items)
        scores_UC = np.empty((len(encoded), len(rows)), dtype=np.float32)
        for users_B, batch in encoded.batches(self.engine.max_len, BATCH_SIZE, filter_seen=False):
            scores_UC[users_B] = self.engine.scores(batch, rows)
        users = encoded.users.gather(np.repeat(np.arange(len(encoded)), len(rows)))
        items = self.catalogue.raw_ids.gather(np.tile(rows, len(encoded)))
        return pl.DataFrame({"user": users, "item": items, "score": scores_UC.ravel()})

    def user_vectors(self, histories: HistoriesLike, *, unknown_items: str = "drop") -> Floats:
        """The user vectors, float32 `[U, E]`: score = user vector · item vector.

        Args:
            histories: see `recommend`; every user needs a known item.
            unknown_items: see `recommend`.

        Raises:
            UserError: if a user has no known item.
        """
        encoded = self.warm(histories, unknown_items)
        parts = [
            (users_B, self.engine.user_vectors(batch))
            for users_B, batch in encoded.batches(self.engine.max_len, BATCH_SIZE, filter_seen=False)
        ]
        vectors = np.empty((len(encoded), self.engine.item_vectors().shape[1]), dtype=np.float32)
        for users_B, part in parts:
            vectors[users_B] = part
        return vectors

    def item_vectors(self) -> Floats:
        """The vectors that score the items, float32 `[I + 1, E]`, in the order of `catalogue.raw_ids`."""
        return self.engine.item_vectors()

    @cached_property
    def unit_vectors(self) -> Floats:
        """The item vectors, each divided by its norm, `[I + 1, E]`."""
        vectors = self.engine.item_vectors()
        unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit

    def check_length(self, k: int) -> None:
        """Refuses a length of lists outside 1..I, or beyond that of the lists that the method generates.

        Raises:
            UserError: if it is.
        """
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= self.catalogue.num_items:
            raise UserError(f"k={k}: must be an integer from 1 to {self.catalogue.num_items:,}, the number of items")
        if k > self.facts.get(LIST_LENGTH, k):
            raise UserError(
                f"k={k}: {self.facts['method']} generates lists of {self.facts[LIST_LENGTH]} items; ask for as many or "
                "fewer"
            )

    def candidates(self, only: Iterable[Any] | None, without: Iterable[Any] | None) -> Ids | None:
        """The numbers of the items that may be recommended, rising; None: all.

        Raises:
            UserError: if an id is unknown, or no item is left.
        """
        if only is None and without is None:
            return None
        allowed = np.arange(1, self.catalogue.num_items + 1)
        if only is not None:
            allowed = np.unique(self.catalogue.require(only, "only"))
        if without is not None:
            allowed = np.setdiff1d(allowed, self.catalogue.require(without, "without"))
        if not len(allowed):
            raise UserError("only, without: leave no item that may be recommended; allow some")
        return allowed

    def popular(self, k: int, candidates_C: Ids | None) -> Ids:
        """The K items that occur most often in the data, of those that may be recommended."""
        ranked = self.catalogue.most_popular
        if candidates_C is not None:
            ranked = ranked[np.isin(ranked, candidates_C)]
        return ranked[:k]

    def warm(self, histories: HistoriesLike, unknown_items: str) -> Histories:
        """Encoded histories, each with one known item or more.

        Raises:
            UserError: if one has none.
        """
        encoded = encode(histories, self.catalogue, unknown_items=unknown_items)
        empty = np.flatnonzero(encoded.lengths == 0)
        if len(empty):
            raise UserError(f"histories: user {encoded.users[int(empty[0])]} has no item that the catalogue knows")
        return encoded

    def frame(self, users: pl.Series, ids_UK: Ids, scores_UK: Floats) -> pl.DataFrame:
        """Lists as a frame with raw ids; empty places are left out."""
        length = ids_UK.shape[1]
        filled = np.flatnonzero(ids_UK.ravel())
        scores = pl.Series(scores_UK.ravel()[filled]).fill_nan(None)
        return pl.DataFrame(
            {
                "user": users.gather(filled // length) if length else users.head(0),
                "item": self.catalogue.raw_ids.gather(ids_UK.ravel()[filled]),
                "score": scores,
                "rank": (filled % length + 1).astype(np.int32),
            }
        )

    def titles(self, frame: pl.DataFrame, column: str = "item") -> pl.DataFrame:
        """A frame with the titles of a column of raw ids beside it, in the column `title`."""
        titles = self.catalogue.items.slice(1).select(pl.col("raw_id").alias(column), "title")
        return frame.join(titles, on=column, how="left", maintain_order="left")
