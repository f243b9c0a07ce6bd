"""Teams of threads: their results in order, their shares even, and the process's threads as they were."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
import torch

from support.threads import torch_threads
from support.waiting import HANG_SECONDS
from tslrec.training.thread_teams import balance, number_of_teams, run_parallel


@pytest.fixture(autouse=True)
def _four_threads() -> Iterator[None]:
    with torch_threads(4):
        yield


@pytest.mark.parametrize(("threads", "teams"), [(1, 1), (2, 2), (4, 4), (16, 4)])
def test_there_are_as_many_teams_as_threads_up_to_a_limit(threads: int, teams: int) -> None:
    with torch_threads(threads):
        assert number_of_teams() == teams


def test_works_run_at_once_and_share_the_threads() -> None:
    meeting = threading.Barrier(2, timeout=HANG_SECONDS)

    def work(name: str) -> tuple[str, int]:
        meeting.wait()
        return name, torch.get_num_threads()

    assert run_parallel([partial(work, "first"), partial(work, "second")]) == [("first", 2), ("second", 2)]


def test_a_single_work_is_done_by_the_caller() -> None:
    assert run_parallel([threading.current_thread]) == [threading.current_thread()]


def test_an_error_is_raised_once_all_works_have_ended() -> None:
    released, ended = threading.Event(), []

    def fails() -> None:
        released.set()
        raise ValueError("the first")

    def goes_on() -> None:
        assert released.wait(HANG_SECONDS)
        ended.append(True)

    with pytest.raises(ValueError, match="the first"):
        run_parallel([fails, goes_on])
    assert ended == [True]


@pytest.mark.parametrize(
    ("costs", "teams", "shares"),
    [
        ([1, 1, 1, 1], 2, [[0, 2], [1, 3]]),
        ([1, 5, 2, 2], 2, [[1], [2, 3, 0]]),
        ([3, 3], 2, [[0], [1]]),
        ([3, 3], 4, [[0], [1]]),
        ([0, 0], 2, [[0], [1]]),
        ([4, 2, 9], 1, [[2, 0, 1]]),
    ],
)
def test_each_team_has_about_as_much_to_do(costs: list[int], teams: int, shares: list[list[int]]) -> None:
    assert balance(costs, teams) == shares
