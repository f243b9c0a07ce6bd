"""Batches that a background thread prepares are those that are made when asked for; so is the state."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import pytest
from numpy.typing import NDArray

from support.waiting import wait_until
from tslrec.data.batching import Batches, RandomBatches
from tslrec.data.prefetching import Prefetcher


def listed(batch: NDArray[np.int64]) -> list[int]:
    return [int(index) for index in batch]


def loader(ahead: int, collate: Callable[[NDArray[np.int64]], list[int]] = listed) -> Batches[list[int]]:
    made = Batches(RandomBatches(23, batch_size=5, seed=3, steps_per_epoch=7), collate)
    made.prefetch(ahead)
    return made


def drawn(batches: Batches[list[int]], count: int) -> list[list[int]]:
    """Batches of as many epochs as it takes, each read as Lightning reads it: never further than it is long."""
    found: list[list[int]] = []
    while len(found) < count:
        found.extend(islice(batches, min(len(batches), count - len(found))))
    return found


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    wait_until(lambda: not threads(), "the end of the thread")


@pytest.mark.parametrize("ahead", [1, 4, 100])
def test_the_batches_of_several_epochs_are_the_same_in_the_same_order(ahead: int) -> None:
    assert drawn(loader(ahead), 30) == drawn(loader(0), 30)


@pytest.mark.parametrize("read", [0, 1, 6, 7, 11])
@pytest.mark.parametrize("resumed_ahead", [0, 4])
def test_the_state_is_that_of_the_batch_delivered_last(read: int, resumed_ahead: int) -> None:
    whole = drawn(loader(0), read + 9)
    plain, stopped, resumed = loader(0), loader(4), loader(resumed_ahead)
    running = iter(stopped)
    before = [next(running) for _ in range(min(read, 7))]
    if read > 7:
        running = iter(stopped)
        before += [next(running) for _ in range(read - 7)]
    assert before == drawn(plain, read)
    assert stopped.state_dict() == plain.state_dict()
    resumed.load_state_dict(stopped.state_dict())
    assert drawn(resumed, 9) == whole[read:]
    stopped.close()
    assert stopped.state_dict() == plain.state_dict()


def test_after_an_early_break_the_next_iteration_continues_with_the_next_batch() -> None:
    batches = loader(4)
    found = []
    for batch in batches:
        found.append(batch)
        if len(found) == 3:
            break
    assert found + drawn(batches, 4) == drawn(loader(0), 7)


def test_a_state_that_is_loaded_while_the_thread_runs_counts() -> None:
    batches, state = loader(4), loader(0).state_dict()
    next(iter(batches))
    batches.load_state_dict(state)
    assert drawn(batches, 9) == drawn(loader(0), 9)


def test_switching_it_on_after_the_iterator_was_made_counts() -> None:
    batches = loader(0)
    running = iter(batches)
    batches.prefetch(2)
    next(running)
    assert threads()
    batches.close()
    assert not threads()


def test_what_prepares_a_batch_runs_in_the_thread() -> None:
    names: list[str] = []

    def prepare(batch: list[int]) -> list[int]:
        names.append(threading.current_thread().name)
        return [*batch, -1]

    batches = loader(2)
    batches.prefetch(2, prepare)
    assert [batch[-1] for batch in islice(batches, 7)] == [-1] * 7
    assert set(names) == {"prefetch"}


def test_an_error_comes_where_its_batch_would_have_come_and_ends_the_thread() -> None:
    calls: list[int] = []

    def collate(batch: NDArray[np.int64]) -> list[int]:
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("the third batch")
        return listed(batch)

    running = iter(loader(4, collate))
    assert [next(running), next(running)] == drawn(loader(0), 2)
    with pytest.raises(ValueError, match="the third batch"):
        next(running)
    assert not threads()


def test_the_thread_makes_no_more_than_it_may_and_ends_when_it_is_closed() -> None:
    calls: list[int] = []

    def endless() -> Iterator[int]:
        while True:
            calls.append(1)
            yield len(calls)

    prefetcher = Prefetcher(endless(), ahead=3)
    assert next(prefetcher) == 1
    wait_until(lambda: len(calls) == 5, "the batches that are prepared")
    prefetcher.close()
    assert not threads()
    assert len(calls) == 5
    assert list(prefetcher) == []


def test_the_thread_ends_when_nobody_refers_to_its_batches_any_more() -> None:
    prefetcher = Prefetcher(iter(range(100)), ahead=1)
    next(prefetcher)
    assert threads()
    del prefetcher
    gc.collect()
    wait_until(lambda: not threads(), "the end of the thread")
