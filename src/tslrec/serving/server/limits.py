"""What one request may ask for, and what all requests together may."""

from __future__ import annotations

from dataclasses import dataclass

from tslrec.system.errors import UserError


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; each can be met by a client, none by accident.

    Attributes:
        body: bytes of a request's body.
        body_seconds: time in which a body must arrive.
        histories: histories of a request to `/recommend`, and items of one to `/similar`.
        history: items of one history. All of them are left out of the list, so a longer one is refused, not cut.
        k: length of a list.
        filter: ids in `only` or `without`.
        concurrency: requests that are computed or wait for it.
    """

    body: int = 2**20
    body_seconds: float = 10.0
    histories: int = 64
    history: int = 1000
    k: int = 100
    filter: int = 10_000
    concurrency: int = 256

    def check(self, what: str, asked: int, allowed: int) -> None:
        """Refuses a request that asks for too much.

        Args:
            what: names the field.
            asked: a number of the request.
            allowed: one of the bounds.

        Raises:
            UserError: if it asks for more than is allowed.
        """
        if asked > allowed:
            raise UserError(f"{what}: {asked:,}, but this server allows at most {allowed:,}")
