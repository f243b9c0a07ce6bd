"""Answers only requests for names that the server is known by.

A page of another site can let its own name point to the loopback address (DNS rebinding), and then read what a server
on this machine answers. Its requests carry that name in the header `Host`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine that no other site can have."""


def names_for(address: str, allowed: Iterable[str] = ()) -> frozenset[str] | None:
    """The names that a server answers to; None: all, where others than this machine can reach it.

    Args:
        address: numeric, on which it listens.
        allowed: further names.
    """
    if not ipaddress.ip_address(address).is_loopback:
        return None
    return frozenset(name.lower() for name in (*LOOPBACK, address, *allowed))


def name_in(header: str) -> str:
    """The name in a `Host` header, without its port and without brackets around an IPv6 address."""
    name = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
    return name.strip().rstrip(".").lower()


class KnownHosts:
    """ASGI middleware that refuses requests for other names; a request that names none is answered.

    Args:
        app: what answers.
        names: see `names_for`.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str] | None) -> None:
        self.app = app
        self.names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.names is not None:
            given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if given and name_in(given[0]) not in self.names:
                error = f"host: this server is not {name_in(given[0])[:100]}; --allow-host lets it answer to a name"
                await JSONResponse({"error": error}, 421)(scope, receive, send)
                return
        await self.app(scope, receive, send)
