"""`POST /reload`: a newer folder takes the place of a served one, without a lost request."""

from __future__ import annotations

import asyncio
import hmac
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from starlette.exceptions import HTTPException

from tslrec.serving.server.measuring import Measures
from tslrec.serving.server.models import Models, Served, open_model
from tslrec.system.errors import UserError

TOKEN_VARIABLE = "TSLREC_RELOAD_TOKEN"
SHORTEST_TOKEN = 16
"""Characters; a shorter token could be guessed."""
LONGEST_NAME = 100
"""Characters of a folder's name."""


def read_token(path: Path | None) -> str | None:
    """The token that allows reloading; None: nobody may.

    Args:
        path: a file that holds only the token; None: the environment variable counts.

    Raises:
        UserError: if the file cannot be read, or the token is short or not of visible ASCII characters.
    """
    where = TOKEN_VARIABLE if path is None else str(path)
    try:
        token = os.environ.get(TOKEN_VARIABLE) if path is None else path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: no readable token ({error}); name a file that holds only the token") from error
    if token is None:
        return None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            f"{where}: a token needs {SHORTEST_TOKEN} or more visible ASCII characters; openssl rand -hex 32 makes one"
        )
    return token


class Reloader:
    """Loads one folder at a time in a thread of its own.

    Args:
        models: what is served.
        token: what a request must bring.
        measures: counts reloads.
    """

    def __init__(self, models: Models, token: str, measures: Measures) -> None:
        self.models = models
        self.token = token.encode()
        self.measures = measures
        self.busy = False
        self.thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reload")

    def authorize(self, header: str | None) -> None:
        """Refuses a request without the token.

        Args:
            header: the value of `Authorization`.

        Raises:
            HTTPException: 401.
        """
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), self.token):
            raise HTTPException(401, "reload: needs Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})

    async def reload(self, served: Served, name: str | None) -> Served:
        """Loads a folder and swaps it in; requests that run keep the old model.

        Args:
            served: the model that is replaced.
            name: of a folder beside that of the model; None: the same path.

        Raises:
            UserError: if the folder cannot be served; the old model stays.
            HTTPException: 409 if another reload is running.
        """
        folder = served.folder if name is None else beside(served.folder, name)
        if self.busy:
            raise HTTPException(409, "reload: another one is running; wait for its answer")
        self.busy = True
        done = False
        try:
            loop = asyncio.get_running_loop()
            newer = await loop.run_in_executor(self.thread, open_model, folder, served.name, served.engine)
            self.models.swap(newer)
            done = True
            return newer
        finally:
            self.busy = False
            self.measures.reloads.labels("done" if done else "failed").inc()


def beside(folder: Path, name: str) -> Path:
    """A folder beside another one.

    Args:
        folder: the served one.
        name: of the other; only a name, never a path.

    Raises:
        UserError: if it is no plain name.
    """
    if name in ("", ".", "..") or len(name) > LONGEST_NAME or any(mark in name for mark in ("/", "\\", "\0")):
        raise UserError(f"folder: {name!r} is not the name of a folder beside the served one; give a name, not a path")
    return folder.with_name(name)
