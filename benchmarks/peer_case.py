"""What the sides of `peers.py` share: the question, the file and the clock; each has an environment of its own.

The file has a line per user, `user item item …`. The question is ten items for each user who asks with all but the last
item, which RecBole keeps for its test.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cases import CASES, Case

K = 10
CASE: Case = next(case for case in CASES if case.name == "sasrec_d64_beauty")
"""The size of the model; its weights are random, for only time is compared."""


class History(NamedTuple):
    """A user's raw id, and the raw ids of all but the last of the user's items, oldest first."""

    user: str
    items: list[str]


class Words(NamedTuple):
    """The command line of a side.

    Attributes:
        file: of the interactions.
        folder: for what a library writes.
        passes: how often all users are asked for.
        users: how many of the first users ask; None: all.
    """

    file: Path
    folder: Path
    passes: int
    users: int | None


def parse(description: str | None) -> Words:
    """Reads the command line of a side."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--file", required=True, type=Path)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--passes", required=True, type=int)
    parser.add_argument("--users", type=int)
    return Words(**vars(parser.parse_args()))


def read_histories(file: Path) -> list[History]:
    """All users of the file, in its order."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    return [History(user, items[:-1]) for user, *items in lines]


def side_record(
    recommend: Callable[[Sequence[History]], int],
    asking: Sequence[History],
    words: Words,
    *,
    parameters: int,
    threads: int,
    versions: dict[str, str],
) -> dict[str, Any]:
    """Times a side, after a tenth of its users as a warm-up that does not count.

    Args:
        recommend: makes the lists of the users, and returns how many rows they have.
        asking: the users.
        words: the command line.
        parameters: weights of the model.
        threads: that the library uses.
        versions: of the packages that matter.
    """
    recommend(asking[: max(1, len(asking) // 10)])
    seconds, rows = [], []
    for _ in range(words.passes):
        began = time.perf_counter()
        rows.append(recommend(asking))
        seconds.append(time.perf_counter() - began)
    if set(rows) != {K * len(asking)}:
        raise RuntimeError(f"{rows} rows for {len(asking)} users instead of {K} each")
    return {
        "users": len(asking),
        "seconds": statistics.median(seconds),
        "passes": seconds,
        "parameters": parameters,
        "threads": threads,
        "versions": versions,
    }
