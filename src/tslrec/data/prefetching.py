"""Prepares the next batches in a background thread, while the device computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.1
"""How often a thread that waits for a free place looks whether it shall end."""


class Failure:
    """In the place of a batch: the error that the background thread ended with.

    Args:
        error: it.
    """

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Prefetcher(Generic[T]):
    """Iterates over what a source gives, which a background thread asks for some elements ahead.

    The elements come in the source's order. An error of the source is raised where its element would have come. The
    thread ends with the source, when `close` is called, and when nothing refers to this object any more.

    Args:
        source: used by the background thread alone. It must not draw from the global random states, which belong to
            the thread that trains.
        ahead: elements that are prepared before they are asked for, at least 1.
    """

    def __init__(self, source: Iterator[T], ahead: int) -> None:
        self.prepared: queue.Queue[Any] = queue.Queue(maxsize=ahead)
        self.ending = threading.Event()
        self.ended = False
        # The thread does not refer to this object, so that it can be collected while the thread runs.
        arguments = source, self.prepared, self.ending
        self.thread = threading.Thread(target=prepare, args=arguments, name="prefetch", daemon=True)
        self.thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self.ended:
            raise StopIteration
        found: Any = self.prepared.get()
        if not isinstance(found, Failure):
            element: T = found
            return element
        self.close()
        raise found.error

    def close(self) -> None:
        """Ends the thread and waits for it; what it has prepared is dropped."""
        self.ended = True
        self.ending.set()
        if self.thread is not threading.current_thread():
            self.thread.join()

    def __del__(self) -> None:
        # Not `close`: the collector may run in any thread, at any time, and must not wait.
        self.ending.set()


def prepare(source: Iterator[Any], prepared: queue.Queue[Any], ending: threading.Event) -> None:
    """What the background thread does: puts each element of the source into the queue, then why there are no more."""
    try:
        for element in source:
            if not put(element, prepared, ending):
                return
    except BaseException as error:
        put(Failure(error), prepared, ending)
    else:
        put(Failure(StopIteration()), prepared, ending)


def put(element: Any, prepared: queue.Queue[Any], ending: threading.Event) -> bool:
    """Puts an element into the queue as soon as there is a place; False if the thread shall end instead."""
    while not ending.is_set():
        try:
            prepared.put(element, timeout=POLL_SECONDS)
        except queue.Full:
            continue
        return True
    return False
