"""Computes requests that arrive together in one batch, in one thread beside the event loop.

A request that finds the worker idle is computed at once. While the worker computes, requests wait; then those that ask
alike (`Alike`) are computed together, once the oldest has waited for `wait_seconds` or the batch is full. So a lonely
request never waits for company, and under load a batch forms by itself.

Shapes: U histories, K places of a list.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from tslrec.serving.engine import Floats, Ids
from tslrec.serving.server.models import Served, histories_of

log = logging.getLogger(__name__)
T = TypeVar("T")


class Alike(NamedTuple):
    """What requests must have in common to be computed together.

    Attributes:
        served: the model; a replaced one and its successor differ.
        k: K.
        filter_seen: see `Recommender.recommend`.
        cold: `popular` or `skip`.
        only: see `Recommender.recommend`.
        without: see `Recommender.recommend`.
    """

    served: Served
    k: int
    filter_seen: bool
    cold: str
    only: tuple[str, ...] | None
    without: tuple[str, ...] | None

    def compute(self, items: Sequence[Sequence[int]]) -> tuple[Ids, Floats]:
        """The best items of histories.

        Args:
            items: item numbers of each user.

        Returns:
            See `Recommender.best_items`.
        """
        recommender = self.served.recommender
        candidates_C = recommender.candidates(self.only, self.without)
        return recommender.best_items(
            histories_of(items), self.k, filter_seen=self.filter_seen, candidates_C=candidates_C, cold=self.cold
        )


@dataclass(frozen=True)
class Waiting:
    """A request that waits for the worker."""

    alike: Alike
    items: Sequence[Sequence[int]]
    since: float
    answer: asyncio.Future[tuple[Ids, Floats]]


class Batcher:
    """See the module. `start` and `stop` run in the event loop, like `ask` and `run`.

    Args:
        wait_seconds: how long a request waits for others when the worker was busy as it came.
        max_histories: histories of a batch; a request that has more is a batch of its own.
        observe: is told the number of histories of each batch.
    """

    def __init__(self, wait_seconds: float, max_histories: int, observe: Callable[[int], None]) -> None:
        self.wait_seconds = wait_seconds
        self.max_histories = max_histories
        self.observe = observe
        self.queue: deque[Waiting] = deque()
        self.arrived = asyncio.Event()
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to compute."""
        self.task = asyncio.get_running_loop().create_task(self.compute_batches())

    async def stop(self) -> None:
        """Ends the worker; requests must have been answered before."""
        if self.task is not None:
            self.task.cancel()
        self.worker.shutdown(wait=False, cancel_futures=True)

    async def ask(self, alike: Alike, items: Sequence[Sequence[int]]) -> tuple[Ids, Floats]:
        """The best items of a request's histories.

        Args:
            alike: what is asked.
            items: item numbers of each user.

        Returns:
            Ids `[U, K]` and scores `[U, K]`, see `Recommender.best_items`.

        Raises:
            UserError: if the model refuses the request.
        """
        waiting = Waiting(alike, items, time.monotonic(), asyncio.get_running_loop().create_future())
        self.queue.append(waiting)
        self.arrived.set()
        return await waiting.answer

    async def run(self, function: Callable[[], T]) -> T:
        """The result of a function that runs in the worker, after what it has begun."""
        return await asyncio.get_running_loop().run_in_executor(self.worker, function)

    async def compute_batches(self) -> None:
        """Takes batches off the queue, without end."""
        while True:
            if not self.queue:
                self.arrived.clear()
                await self.arrived.wait()
            await self.compute(self.take())
            if self.queue:
                await self.fill_up()

    async def fill_up(self) -> None:
        """Waits until the oldest request has waited long enough or the batch is full."""
        deadline = self.queue[0].since + self.wait_seconds
        while sum(len(each.items) for each in self.queue) < self.max_histories:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self.arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await self.arrived.wait()
            except TimeoutError:
                return

    def take(self) -> list[Waiting]:
        """The oldest request and those behind it that ask alike, as many as fit into a batch."""
        batch, rest = [self.queue.popleft()], deque[Waiting]()
        histories = len(batch[0].items)
        while self.queue:
            each = self.queue.popleft()
            fits = histories + len(each.items) <= self.max_histories
            if fits and each.alike == batch[0].alike:
                batch.append(each)
                histories += len(each.items)
            else:
                rest.append(each)
        self.queue = rest
        return batch

    async def compute(self, batch: Sequence[Waiting]) -> None:
        """Computes a batch and gives each request its rows, or all of them the error."""
        items = [each for waiting in batch for each in waiting.items]
        self.observe(len(items))
        try:
            ids_UK, scores_UK = await self.run(lambda: batch[0].alike.compute(items))
        except Exception as error:
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        begin = 0
        for waiting in batch:
            end = begin + len(waiting.items)
            if not waiting.answer.done():
                waiting.answer.set_result((ids_UK[begin:end], scores_UK[begin:end]))
            begin = end
