"""Independent tasks in parallel on a CPU: the threads of the process are split into teams, one for each task.

Threads that share one operation wait for each other at its end, which happens after each of the hundreds of small
operations of a step; at the sizes of a recommender that takes a third of the time. Teams wait for each other once, at
the end of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")

MOST_TEAMS = 4
"""Upper limit of the number of teams: only one of them at a time can run Python code (the interpreter's lock)."""


def number_of_teams() -> int:
    """Number of teams: one for each of torch's threads, at most `MOST_TEAMS`."""
    return min(torch.get_num_threads(), MOST_TEAMS)


def run_parallel(works: Sequence[Callable[[], T]]) -> list[T]:
    """Runs tasks in parallel, each in a team of threads of its own; a single task runs in the calling thread.

    Args:
        works: the tasks; at least one, at most `number_of_teams`.

    Returns:
        Their results, in the order of the tasks.

    Raises:
        BaseException: what the first task (in their order) that failed has raised, once all have ended.
    """
    if len(works) == 1:
        return [works[0]()]
    threads = torch.get_num_threads()

    def done(work: Callable[[], T]) -> T:
        torch.set_num_threads(threads // len(works))
        return work()

    try:
        futures = [team_leaders(len(works)).submit(done, work) for work in works]
        wait(futures)
    finally:
        # `torch.set_num_threads` in a team also changes the number of the whole process.
        torch.set_num_threads(threads)
    return [future.result() for future in futures]


@cache
def team_leaders(count: int) -> ThreadPoolExecutor:
    """A pool with the first thread of each team. It is kept: a new thread would have to allocate its memory again."""
    return ThreadPoolExecutor(count, thread_name_prefix="team")


def balance(costs: Sequence[int], teams: int) -> list[list[int]]:
    """Distributes tasks among teams so that their costs are about equal: greedily, the costliest task first.

    Args:
        costs: of each task, in any unit.
        teams: number of teams.

    Returns:
        The indices of each team's tasks. No team is empty: with fewer tasks than teams, there are as many lists as
        tasks.
    """
    shares: list[list[int]] = [[] for _ in range(min(teams, len(costs)))]
    loads = [0] * len(shares)
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        team = min(range(len(shares)), key=lambda team: (loads[team], len(shares[team])))
        shares[team].append(place)
        loads[team] += costs[place]
    return shares
