"""Bounds what a request may send and how many are computed at a time, before anything reads its content."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tslrec.serving.server.limits import Limits

ALWAYS_ANSWERED = frozenset({"/health", "/metrics"})
"""Paths that a busy server answers too."""
DISCARDED_SECONDS = 2.0
"""After a refusal, how long what the client still sends is read away: a connection that is closed with unread bytes
is reset, and the client might not see the answer."""


class BodyTooLargeError(Exception):
    """A body exceeds the limit."""


class ClientLeftError(Exception):
    """The client closed the connection before its request was complete."""


class Guard:
    """ASGI middleware that reads a whole body within the limits and then gives it to the app.

    A request counts as running only when its body is there, so slow clients take no places.

    Args:
        app: what is guarded.
        limits: the bounds.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                body = await read_body(scope, receive, self.limits.body)
        except BodyTooLargeError:
            error = f"body: larger than the {self.limits.body:,} bytes that this server allows"
            await refuse_unread(413, error, receive, send)
            return
        except TimeoutError:
            error = f"body: not complete after {self.limits.body_seconds:g} s"
            await refuse_unread(408, error, receive, send, discard=False)
            return
        except ClientLeftError:
            return
        if self.running >= self.limits.concurrency and scope["path"] not in ALWAYS_ANSWERED:
            error = f"busy: {self.running:,} requests are running, which is the limit; try again"
            await JSONResponse({"error": error}, 503, {"retry-after": "1"})(scope, receive, send)
            return
        given = False

        async def receive_body() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        self.running += 1
        try:
            await self.app(scope, receive_body, send)
        finally:
            self.running -= 1


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body of a request.

    Args:
        scope: of the request.
        receive: gives its messages.
        limit: bytes.

    Raises:
        BodyTooLargeError: if it is longer; not more than that many bytes are kept.
        ClientLeftError: if the client leaves before.
    """
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if announced.isdigit() and int(announced) > limit:
        raise BodyTooLargeError
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientLeftError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise BodyTooLargeError
        if not message.get("more_body", False):
            return b"".join(parts)


async def refuse_unread(status: int, error: str, receive: Receive, send: Send, *, discard: bool = True) -> None:
    """Answers a request whose body is not read, and closes the connection.

    Args:
        status: of the answer.
        error: one line.
        receive: gives what the client still sends.
        send: takes the answer.
        discard: whether to read that away for a short time.
    """
    content = bytes(JSONResponse({"error": error}).body)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    if discard:
        # After that time the connection is closed, whatever the client does.
        with suppress(TimeoutError):
            async with asyncio.timeout(DISCARDED_SECONDS):
                more = True
                while more:
                    message = await receive()
                    more = message["type"] == "http.request" and message.get("more_body", False)
    await send({"type": "http.response.body", "body": b"", "more_body": False})
