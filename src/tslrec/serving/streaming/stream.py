"""Recommends to any number of users, shard by shard, into one file; several processes share the shards.

Each process holds one shard of users at a time, and rank 0 joins the finished shards. A process that is killed loses
the shard that it was computing; the same command resumes with the finished ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tslrec.serving.recommender import Recommender
from tslrec.serving.streaming.parts import ROWS, Parts, alone, parts_folder, remove_parts
from tslrec.serving.streaming.plan import Plan, Request
from tslrec.serving.streaming.result_files import join
from tslrec.serving.streaming.sources import HistorySource
from tslrec.system.disk_errors import disk_fault
from tslrec.system.errors import UserError
from tslrec.system.meter import peak_memory_gib

log = logging.getLogger(__name__)

SHARD_SIZE = 50_000
"""Users of a shard: some ten MB of histories, and some ten seconds of work."""

REMEDY = "make space and run the same command again, or name another file; what is finished is kept"


@dataclass(frozen=True)
class Totals:
    """What came of the users of a source, or of some of them.

    Attributes:
        users: number of users.
        unknown_items: items of their histories that the catalogue lacks and that were dropped.
        cold_users: users without a known item.
        rows: recommended items of all users together.
    """

    users: int = 0
    unknown_items: int = 0
    cold_users: int = 0
    rows: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(**{name: value + getattr(other, name) for name, value in vars(self).items()})


def recommend_range(
    recommender: Recommender, source: HistorySource, request: Request, users: slice
) -> tuple[pl.DataFrame, Totals]:
    """Recommends to a range of users.

    Args:
        recommender: the recommender.
        source: the histories.
        request: what is wanted.
        users: places in the source.

    Returns:
        A frame as `Recommender.recommend` gives it, and what it counts.

    Raises:
        UserError: if a history cannot be read, or is refused.
    """
    histories = source.read(users, recommender.catalogue, request.unknown_items)
    ids_UK, scores_UK = recommender.best_items(
        histories, request.k, filter_seen=request.filter_seen, candidates_C=request.candidates_C, cold=request.cold
    )
    frame = recommender.frame(histories.users, ids_UK, scores_UK)
    cold = int(np.count_nonzero(histories.lengths == 0))
    return frame, Totals(len(histories), histories.unknown, cold, len(frame))


def recommend_to_file(
    recommender: Recommender,
    source: HistorySource,
    request: Request,
    out: Path,
    *,
    shard_size: int = SHARD_SIZE,
    first: bool = True,
    progress: Callable[[int], None] = lambda users: None,
) -> Totals | None:
    """Recommends to all users of a source, and writes one file.

    Every process of a job calls it with the same arguments.

    Args:
        recommender: the recommender.
        source: the histories.
        request: what is wanted.
        out: the file, which does not exist; its ending decides the format (see `result_files`).
        shard_size: users that are read, computed and written together.
        first: whether this process is rank 0, which returns only when the file is complete.
        progress: called with the number of users that are finished in all processes.

    Returns:
        On rank 0 what the file counts; on other ranks, and if an earlier run had finished the file, None.

    Raises:
        UserError: if a history is refused, an earlier run's parts are made of something else, or the disk is full.
    """
    try:
        return fill_and_join(recommender, source, request, out, shard_size=shard_size, first=first, progress=progress)
    except (OSError, pl.exceptions.PolarsError) as error:
        if (fault := disk_fault(error, out, REMEDY)) is None:
            raise
        raise fault from error


def fill_and_join(
    recommender: Recommender,
    source: HistorySource,
    request: Request,
    out: Path,
    *,
    shard_size: int,
    first: bool,
    progress: Callable[[int], None],
) -> Totals | None:
    """See `recommend_to_file`."""
    folder, plan = parts_folder(out), Plan.of(recommender, source, request, shard_size)

    def unfinished() -> bool:
        return not out.exists()

    parts = Parts.begin_or_resume(folder, plan, first=first, unfinished=unfinished)
    if parts is None:
        return None
    if first and (found := parts.num_shards - len(parts.missing)):
        log.info(f"resumes after {found:,} of {parts.num_shards:,} shards")

    def produce(number: int, aside: Path) -> dict[str, Any]:
        done = parts.num_shards - len(parts.missing)
        progress(min(done * parts.plan.shard_size, parts.plan.num_users))
        frame, totals = recommend_range(recommender, source, request, parts.plan.span(number))
        frame.write_parquet(aside / ROWS)
        return {**vars(totals), "peak_memory_gib": peak_memory_gib()}

    try:
        parts.fill(produce, unfinished=unfinished, wait_for_others=first)
    except (UserError, OSError, pl.exceptions.PolarsError):
        parts.forget_if_empty()
        raise
    if not first:
        return None
    with alone(folder):
        if not unfinished():
            # Another command with the same arguments shared the work, and joined it.
            return None
        totals = sum((totals_of(parts, number) for number in range(parts.num_shards)), start=Totals())
        join(parts.files, out)
    # What cannot be deleted now, the next command with this file deletes.
    remove_parts(folder)
    return totals


def totals_of(parts: Parts, number: int) -> Totals:
    """What a finished shard counts."""
    manifest = parts.manifest(number)
    return Totals(**{name: int(manifest[name]) for name in vars(Totals())})
