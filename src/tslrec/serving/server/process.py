"""The server as a process: its socket, slow clients, and an end that loses no request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import threading
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from tslrec.system.errors import UserError

BACKLOG = 2048
"""Connections that may wait to be accepted."""
CONNECTIONS = 512
"""Open connections; further ones are answered with 503."""
HEAD_SECONDS = 10.0
"""Time in which the head of a request must arrive."""
WRITE_SECONDS = 20.0
"""Time in which a client must take an answer that does not fit into the buffers."""
KEEP_ALIVE_SECONDS = 30
"""How long an idle connection stays open."""
DRAIN_SECONDS = 0.5
"""After SIGTERM, how long connections stay open for a request that may be on its way."""
FINISH_SECONDS = 30
"""After that, how long requests may take to finish."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; a second server on the same port is refused from this moment.

    Args:
        host: name or address.
        port: 0: any free one.

    Raises:
        UserError: if the address is in use or not of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{host}:{port}: cannot listen there ({reason}); choose another --port or --host") from error
    listening.setblocking(False)
    return listening


class Connection(H11Protocol):
    """A connection that a slow client cannot hold for long, and whose errors are JSON as well."""

    slow_head: TimerHandle | None = None
    slow_reader: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self.refuse(503, "busy: too many connections; try again", [(b"retry-after", b"1")])
            return
        self.slow_head = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        cancel(self.slow_head, self.slow_reader)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The beginning of the next head may have come together with the request before it.
        if self.conn.trailing_data[0]:
            self.watch_head()

    def watch_head(self) -> None:
        """Starts the time of a head that is not complete, and ends that of one that is."""
        if self.conn.their_state is not h11.IDLE:
            cancel(self.slow_head)
            self.slow_head = None
        elif self.slow_head is None:
            self.slow_head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.slow_reader = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        cancel(self.slow_reader)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self.refuse(400, msg, [])

    def refuse(self, status: int, error: str, headers: list[tuple[bytes, bytes]]) -> None:
        """Answers without asking the app, and closes the connection."""
        content = json.dumps({"error": error}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close"), *headers]
        headers.append((b"content-length", str(len(content)).encode()))
        events: list[Any] = [h11.Response(status_code=status, headers=headers), h11.Data(data=content)]
        for event in (*events, h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def cancel(*timers: TimerHandle | None) -> None:
    """Cancels timers."""
    for timer in timers:
        if timer is not None:
            timer.cancel()


def accept_all(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait to be accepted."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            # None is left (`BlockingIOError`), or the process may open no more files.
            return
        connection.setblocking(False)
        yield connection


class Server(uvicorn.Server):
    """Drains after SIGTERM or SIGINT: answers what was sent, tells clients to close, and ends with exit code 0.

    New connections are refused from then on. Closing an idle connection at once would lose a request that the client is
    just sending. So for `DRAIN_SECONDS` every answer carries `Connection: close`, and only then the rest is closed.

    Args:
        config: of uvicorn.
        started: is called once requests are answered and signals are obeyed.
    """

    def __init__(self, config: uvicorn.Config, started: Callable[[], object]) -> None:
        super().__init__(config)
        self.announce = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self.stop_listening(sockets or [])
        headers = [*self.server_state.default_headers, (b"connection", b"close")]
        self.server_state.default_headers = headers
        for connection in self.server_state.connections:
            if isinstance(connection, Connection) and connection.cycle is not None:
                connection.cycle.default_headers = headers
        loop = asyncio.get_running_loop()
        end = loop.time() + DRAIN_SECONDS
        while loop.time() < end and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets)

    async def stop_listening(self, sockets: Sequence[socket.socket]) -> None:
        """Accepts the connections that wait for it, which would be reset otherwise, and then no more."""
        loop = asyncio.get_running_loop()
        accepted = [connection for listening in sockets for connection in accept_all(listening)]
        for server in self.servers:
            server.close()
        for connection in accepted:
            await loop.connect_accepted_socket(
                lambda: Connection(self.config, self.server_state, self.lifespan.state, loop), connection
            )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was obeyed is not raised again, which would end the process by it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        stopping = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {each: signal.signal(each, self.handle_exit) for each in stopping}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A second signal ends the server without waiting for requests.
        self.force_exit = self.should_exit
        self.should_exit = True


def make_server(app: Any, started: Callable[[], object] = lambda: None) -> Server:
    """A server of an ASGI app; `run(sockets=[…])` serves until a signal.

    Args:
        app: the ASGI app.
        started: see `Server`.
    """
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    return Server(config, started)
