"""Sends requests to a server at random moments, in a process of its own (see `serve.py`); prints figures as JSON.

It imports nothing heavy and speaks HTTP by hand, so that it takes as little of the machine as it can.
"""

from __future__ import annotations

import asyncio
import json
import random
import selectors
import sys
import time
from collections import Counter
from pathlib import Path

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CONNECTIONS = 400
"""Open connections; when all are busy a request waits for one, and its latency grows by that."""


class Load:
    """Requests of an open loop over connections that are kept alive.

    Args:
        port: of the server on loopback.
        bodies: are sent in turn.
    """

    def __init__(self, port: int, bodies: list[bytes]) -> None:
        head = b"POST /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: "
        self.requests = [head + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies]
        self.port = port
        self.idle: list[Stream] = []
        self.free = asyncio.Semaphore(CONNECTIONS)
        self.seconds: list[float] = []
        self.late: list[float] = []
        self.ended: Counter[str] = Counter()

    async def run(self, rate: float, warm_up: float, seconds: float, seed: int) -> None:
        """Sends requests at moments of a Poisson process.

        Args:
            rate: requests per second.
            warm_up: seconds whose requests are not counted.
            seconds: seconds whose requests are counted.
            seed: of the moments.
        """
        moments, tasks, number = random.Random(seed), set(), 0
        began = time.perf_counter()
        at = began
        while (at := at + moments.expovariate(rate)) < began + warm_up + seconds:
            wait = at - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            counted = at >= began + warm_up
            task = asyncio.create_task(self.send_when_free(self.requests[number % len(self.requests)], at, counted))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        await asyncio.gather(*tasks)

    async def send_when_free(self, request: bytes, at: float, counted: bool) -> None:
        """As `send`, once there may be another connection."""
        async with self.free:
            await self.send(request, at, counted)

    async def send(self, request: bytes, at: float, counted: bool) -> None:
        """Sends a request and notes how it ended.

        Args:
            request: head and body.
            at: the moment at which it is meant to be sent.
            counted: whether its latency counts; how it ended always does.
        """
        try:
            stream = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            self.ended["refused"] += 1
            return
        try:
            stream[1].write(request)
            if counted:
                self.late.append(time.perf_counter() - at)
            status, keep = await read_answer(stream[0])
        except (OSError, asyncio.IncompleteReadError):
            self.ended["lost"] += 1
            stream[1].close()
            return
        if counted:
            self.seconds.append(time.perf_counter() - at)
        self.ended["answered" if status == 200 else "wrong_status"] += 1
        if keep:
            self.idle.append(stream)
        else:
            stream[1].close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Reads one answer.

    Returns:
        Its status, and whether the connection may be used again.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), b"connection: close" not in head


def percentile(values: list[float], share: float) -> float:
    """The value that a share of the values does not exceed, in milliseconds."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main(words: list[str]) -> None:
    """Sends the load and prints the figures."""
    port, path, rate, seconds, warm_up, seed = words
    bodies = Path(path).read_bytes().splitlines()
    load = Load(int(port), bodies)
    # epoll waits for whole milliseconds; select does not, so that requests leave when they are meant to.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(load.run(float(rate), float(warm_up), float(seconds), int(seed)))
    figures = {
        "rate": len(load.seconds) / float(seconds),
        "p50": percentile(load.seconds, 0.5),
        "p99": percentile(load.seconds, 0.99),
        "max": 1000 * max(load.seconds),
        "late_p99": percentile(load.late, 0.99),
        **{name: load.ended[name] for name in ("answered", "lost", "wrong_status", "refused")},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
