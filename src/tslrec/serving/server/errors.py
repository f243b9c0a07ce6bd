"""Every error leaves the server as `{"error": "one line"}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tslrec.serving.server.models import UnknownModelError
from tslrec.system.errors import UserError

LONGEST = 500
"""Characters of a message; longer ones are cut."""
RAW_ID_CHOICES = frozenset({"int", "constrained-str", "str"})
"""How pydantic names the two forms of a raw id at the end of a place."""


def answer(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as an answer.

    Args:
        status: of HTTP.
        message: what is wrong, where and what to do.
        headers: of HTTP.
    """
    line = " ".join(message.split())
    # A message may quote what the client sent, which need not be valid Unicode.
    line = line.encode("utf-8", errors="replace").decode("utf-8")
    return JSONResponse({"error": line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"}, status, headers)


def add_error_answers(app: FastAPI) -> None:
    """Replaces the answers that FastAPI and Starlette give to errors."""

    @app.exception_handler(UserError)
    async def refused(request: Request, error: UserError) -> JSONResponse:
        return answer(404 if isinstance(error, UnknownModelError) else 422, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        if request.method == "POST" and not request.headers.get("content-type", "").startswith("application/json"):
            return answer(422, "body: send JSON, with the header content-type: application/json")
        return answer(422, describe_invalid(error.errors()))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        headers = None if error.headers is None else dict(error.headers)
        if error.status_code == 404:
            return answer(404, f"{request.url.path}: nothing is here; GET /docs lists what is", headers)
        if error.status_code == 405:
            return answer(
                405, f"{request.url.path}: does not answer {request.method}; GET /docs lists what does", headers
            )
        return answer(error.status_code, str(error.detail), headers)

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> JSONResponse:
        return answer(500, "internal error; the server's log has the details")


def describe_invalid(errors: Sequence[Any]) -> str:
    """One line about a request that does not fit its schema: the first fault, and how many more there are."""
    first = errors[0]
    place = [str(part) for part in first["loc"]]
    if place[-1] in RAW_ID_CHOICES:
        same = [each for each in errors if each["loc"][:-1] == first["loc"][:-1]]
        message = first["msg"] if len(same) == 1 else "a raw id is text of at most 500 characters, or an integer"
        return f"{'.'.join(place[1:-1])}: {message}"
    if first["type"] == "json_invalid":
        return f"body: is no JSON ({first['ctx']['error']} at character {first['loc'][-1]})"
    return f"{'.'.join(place[1:]) or place[0]}: {first['msg']}"
