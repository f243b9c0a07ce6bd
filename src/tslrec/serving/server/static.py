"""The page at `/` and its three files, by fixed names; and `/docs`, a plain list of what the server answers.

FastAPI's own `/docs` loads scripts from another server. This one works without the internet and within the
Content-Security-Policy; `/openapi.json` is the whole description for any tool that reads OpenAPI.
"""

from __future__ import annotations

from html import escape
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""File name and content type by path."""

router = APIRouter(include_in_schema=False)


def page_file(path: str) -> Response:
    """A file of the page.

    Args:
        path: a key of `PAGE_FILES`.

    Raises:
        HTTPException: 404 if the installation lacks it.
    """
    name, content_type = PAGE_FILES[path]
    file = files("tslrec.serving.server").joinpath("page", name)
    if not file.is_file():
        raise HTTPException(404)
    # A page of an older version must not stay in a browser; the files are small.
    return Response(file.read_bytes(), headers={"content-type": content_type, "cache-control": "no-cache"})


@router.get("/")
async def index() -> Response:
    """The page."""
    return page_file("/")


@router.get("/page.css")
async def stylesheet() -> Response:
    """The page's style."""
    return page_file("/page.css")


@router.get("/page.js")
async def script() -> Response:
    """The page's script."""
    return page_file("/page.js")


@router.get("/icon.svg")
async def icon() -> Response:
    """The page's icon; without one, a browser asks for /favicon.ico and reports that it is missing."""
    return page_file("/icon.svg")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """What the server answers, as a plain page."""
    description = request.app.openapi()
    rows = "".join(
        f"<dt><code>{method.upper()} {escape(path)}</code></dt><dd>{escape(operation.get('description', ''))}</dd>"
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    )
    title = escape(description["info"]["title"])
    return HTMLResponse(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1><dl>{rows}</dl>'
        '<p>The full description, for tools that read OpenAPI: <a href="openapi.json">openapi.json</a>.</p></html>'
    )
