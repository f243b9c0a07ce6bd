"""Turns a checked request into questions to a recommender, and what it finds into plain data for JSON.

No polars here for `/recommend`: a frame costs more than the computation of a single request.

Shapes: U histories, K places of a list.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tslrec.serving.catalogue import UNKNOWN
from tslrec.serving.engine import Floats, Ids
from tslrec.serving.server.batching import Alike, Batcher
from tslrec.serving.server.limits import Limits
from tslrec.serving.server.models import Served
from tslrec.serving.server.schemas import RecommendRequest, SimilarRequest
from tslrec.system.errors import UserError


async def recommend(asked: RecommendRequest, served: Served, batcher: Batcher, limits: Limits) -> list[dict[str, Any]]:
    """A list per history; see `Recommender.recommend`.

    Args:
        asked: the request.
        served: the model.
        batcher: computes.
        limits: what is allowed.

    Raises:
        UserError: if the request asks for more than is allowed, or an id is unknown and that is refused.
    """
    limits.check("histories", len(asked.histories), limits.histories)
    limits.check("k", asked.k, limits.k)
    served.recommender.check_length(asked.k)
    find = served.recommender.catalogue.by_raw_id.get
    items: list[list[int]] = []
    for place, history in enumerate(asked.histories):
        limits.check(f"histories.{place}", len(history), limits.history)
        numbers = [find(str(raw_id), UNKNOWN) for raw_id in history]
        known = [number for number in numbers if number != UNKNOWN]
        if len(known) < len(numbers) and asked.unknown_items == "refuse":
            missing = str(history[numbers.index(UNKNOWN)])
            raise UserError(
                f"histories.{place}: the catalogue has no item {missing!r}; set unknown_items=drop to leave such items "
                "out"
            )
        if not known and asked.cold == "refuse":
            raise UserError(
                f"histories.{place}: no item that the catalogue knows; set cold=popular or cold=skip to allow that"
            )
        items.append(known)
    only, without = filters(asked, limits)
    cold = "skip" if asked.cold == "refuse" else asked.cold
    ids_UK, scores_UK = await batcher.ask(Alike(served, asked.k, asked.filter_seen, cold, only, without), items)
    return [
        {"items": row, "unknown": len(history) - len(known), "cold": not known}
        for row, history, known in zip(rows(served, ids_UK, scores_UK), asked.histories, items, strict=True)
    ]


def rows(served: Served, ids_UK: Ids, scores_UK: Floats) -> list[list[dict[str, Any]]]:
    """Lists of item numbers as lists of items; empty places are left out.

    Args:
        served: the model.
        ids_UK: item numbers, 0 for an empty place.
        scores_UK: scores, NaN for items that were not scored.
    """
    raw_ids, titles = served.raw_ids, served.titles
    return [
        [
            {
                "item": raw_ids[item],
                "title": titles[item],
                "score": None if math.isnan(score) else score,
                "rank": rank,
            }
            for rank, (item, score) in enumerate(zip(ids_K, scores_K, strict=True), start=1)
            if item
        ]
        for ids_K, scores_K in zip(ids_UK.tolist(), scores_UK.tolist(), strict=True)
    ]


async def similar(asked: SimilarRequest, served: Served, batcher: Batcher, limits: Limits) -> list[dict[str, Any]]:
    """A list per item; see `Recommender.similar`.

    Args:
        asked: the request.
        served: the model.
        batcher: its worker computes.
        limits: what is allowed.

    Raises:
        UserError: if the request asks for more than is allowed, or an id is unknown.
    """
    limits.check("items", len(asked.items), limits.histories)
    limits.check("k", asked.k, limits.k)
    only, without = filters(asked, limits)
    wanted = [str(raw_id) for raw_id in asked.items]
    distinct = list(dict.fromkeys(wanted))
    recommender = served.recommender
    found = await batcher.run(lambda: recommender.similar(distinct, asked.k, only=only, without=without))
    number = recommender.catalogue.by_raw_id
    lists: dict[str, list[dict[str, Any]]] = {raw_id: [] for raw_id in distinct}
    for item, near, cosine, rank in found.iter_rows():
        title = served.titles[number[near]]
        lists[item].append({"item": near, "title": title, "cosine": cosine, "rank": rank})
    return [{"item": raw_id, "items": lists[raw_id]} for raw_id in wanted]


def filters(
    asked: RecommendRequest | SimilarRequest, limits: Limits
) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """The ids of `only` and `without` as text.

    Raises:
        UserError: if there are more than is allowed.
    """
    return texts("only", asked.only, limits), texts("without", asked.without, limits)


def texts(what: str, raw_ids: Sequence[str | int] | None, limits: Limits) -> tuple[str, ...] | None:
    """Raw ids as text; None stays None.

    Raises:
        UserError: if there are more than is allowed.
    """
    if raw_ids is None:
        return None
    limits.check(what, len(raw_ids), limits.filter)
    return tuple(str(raw_id) for raw_id in raw_ids)
