"""What the server counts, for Prometheus."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the latency histogram."""
HISTORIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper bounds of the histogram of batch sizes."""
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Measures:
    """Counters of one server; each has its own registry, so that several can be in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter("tslrec_requests", "Answers.", ["path", "status"], registry=self.registry)
        self.seconds = Histogram(
            "tslrec_request_seconds",
            "From the head of a request to the end of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.running = Gauge("tslrec_requests_running", "Requests without an answer.", registry=self.registry)
        self.batches = Histogram(
            "tslrec_batch_histories", "Histories computed together.", buckets=HISTORIES, registry=self.registry
        )
        self.items = Counter("tslrec_recommended_items", "Items in lists of /recommend.", registry=self.registry)
        self.reloads = Counter("tslrec_reloads", "Reloads by how they ended.", ["result"], registry=self.registry)
        for result in ("done", "failed"):
            self.reloads.labels(result)

    def text(self) -> bytes:
        """All numbers in the text format of Prometheus."""
        return generate_latest(self.registry)


class Measured:
    """ASGI middleware that counts and times requests.

    Args:
        app: what is measured.
        measures: what is counted.
        paths: the paths that are told apart; a client cannot make more of them.
    """

    def __init__(self, app: ASGIApp, measures: Measures, paths: frozenset[str]) -> None:
        self.app = app
        self.measures = measures
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def counting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.measures.running.inc()
        try:
            await self.app(scope, receive, counting_send)
        except BaseException:
            status = status or 500
            raise
        finally:
            self.measures.running.dec()
            path = scope["path"] if scope["path"] in self.paths else "other"
            # No status: the client left before an answer.
            self.measures.requests.labels(path, str(status or "none")).inc()
            self.measures.seconds.labels(path).observe(time.perf_counter() - began)
