"""Work that shares nothing, done at once on a CPU: each piece by its own team of threads.

Threads that share one product wait for each other at its end, and so after each of the hundreds of small operations of
a step; at the sizes of a recommender that takes a third of the time. Teams meet once, at the end of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")

MOST_TEAMS = 4
"""They share one interpreter, which only one thread at a time can be in."""


def number_of_teams() -> int:
    """How many teams this process's threads form."""
    return min(torch.get_num_threads(), MOST_TEAMS)


def at_once(works: Sequence[Callable[[], T]]) -> list[T]:
    """The results of some works, in their order, each done by a team; a single one is done by the caller.

    Args:
        works: one or more, and no more than `number_of_teams`.

    Raises:
        BaseException: the first, by order, that a work raised, once all have ended.
    """
    if len(works) == 1:
        return [works[0]()]
    threads = torch.get_num_threads()

    def done(work: Callable[[], T]) -> T:
        torch.set_num_threads(threads // len(works))
        return work()

    try:
        futures = [members(len(works)).submit(done, work) for work in works]
        wait(futures)
    finally:
        # The number is also the process's.
        torch.set_num_threads(threads)
    return [future.result() for future in futures]


@cache
def members(count: int) -> ThreadPoolExecutor:
    """The first thread of each team; they stay, since a new one would have its memory to get anew."""
    return ThreadPoolExecutor(count, thread_name_prefix="team")


def evenly(costs: Sequence[int], teams: int) -> list[list[int]]:
    """Which works each team does, by their places, so that all have about as much to do: the costliest first.

    No team is idle: where there are fewer works than teams, there are as many shares as works.
    """
    shares: list[list[int]] = [[] for _ in range(min(teams, len(costs)))]
    loads = [0] * len(shares)
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        team = min(range(len(shares)), key=lambda team: (loads[team], len(shares[team])))
        shares[team].append(place)
        loads[team] += costs[place]
    return shares
