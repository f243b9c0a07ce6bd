"""The server's routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from starlette.responses import JSONResponse, Response

from tslrec.serving.server import answering, static
from tslrec.serving.server.batching import Batcher
from tslrec.serving.server.description import describe_limits
from tslrec.serving.server.errors import add_error_answers
from tslrec.serving.server.guard import Guard
from tslrec.serving.server.headers import SafeHeaders
from tslrec.serving.server.hosts import KnownHosts
from tslrec.serving.server.limits import Limits
from tslrec.serving.server.measuring import CONTENT_TYPE, Measured, Measures
from tslrec.serving.server.models import Models
from tslrec.serving.server.reloading import Reloader
from tslrec.serving.server.schemas import (
    ErrorAnswer,
    HealthAnswer,
    ItemsAnswer,
    ModelsAnswer,
    RecommendAnswer,
    RecommendRequest,
    ReloadAnswer,
    ReloadRequest,
    SimilarAnswer,
    SimilarRequest,
)

MOST_FOUND = 100
"""Items of an answer of `/items`."""
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "a request that cannot be read",
        404: "no such model",
        408: "a body that came too slowly",
        413: "a body that is too large",
        421: "a request for another host",
        422: "a request that cannot be answered",
        503: "too many requests at a time; try again after `Retry-After` seconds",
    }.items()
}
"""Answers that every path may give, for the description."""


@dataclass(frozen=True)
class Settings:
    """How a server works.

    Attributes:
        limits: what requests may ask for.
        batch_seconds: see `Batcher`.
        max_batch: see `Batcher`.
        reload_token: allows `/reload`; None: the path does not exist.
        names: that requests may give as the server's; None: any.
    """

    limits: Limits = field(default_factory=Limits)
    batch_seconds: float = 0.0
    max_batch: int = 64
    reload_token: str | None = None
    names: frozenset[str] | None = None


def create_app(models: Models, settings: Settings) -> FastAPI:
    """The ASGI app.

    Args:
        models: what it answers with.
        settings: how.
    """
    limits, measures = settings.limits, Measures()
    batcher = Batcher(settings.batch_seconds, settings.max_batch, measures.batches.observe)
    searching = ThreadPoolExecutor(max_workers=1, thread_name_prefix="search")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        await batcher.stop()
        searching.shutdown(wait=False)

    app = FastAPI(
        title="TSLRec",
        description="Recommendations from trained models; raw ids in and out.",
        version=version("tslrec"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=ERRORS,
    )
    add_error_answers(app)

    @app.post("/recommend", response_model=RecommendAnswer)
    async def recommend(asked: RecommendRequest) -> Response:
        """The best items for each history."""
        served = models.find(asked.model)
        lists = await answering.recommend(asked, served, batcher, limits)
        measures.items.inc(sum(len(each["items"]) for each in lists))
        return JSONResponse({"model": served.name, "lists": lists})

    @app.post("/similar", response_model=SimilarAnswer)
    async def similar(asked: SimilarRequest) -> Response:
        """The items nearest to each item, by the cosine of their vectors."""
        served = models.find(asked.model)
        return JSONResponse({"model": served.name, "lists": await answering.similar(asked, served, batcher, limits)})

    @app.get("/items", response_model=ItemsAnswer)
    async def items(
        search: Annotated[str, Query(max_length=200, description="words; none: the most frequent items")] = "",
        limit: Annotated[int, Query(ge=1, le=MOST_FOUND, description="items of the answer")] = 20,
        model: Annotated[str | None, Query(description="whose items; none: those of the first model")] = None,
        item: Annotated[
            list[str] | None, Query(max_length=MOST_FOUND, description="raw ids: these items instead of a search")
        ] = None,
    ) -> Response:
        """Items by words of their title or raw id, or by exact raw ids; unknown ids are left out."""
        catalogue = models.find(model).recommender.catalogue
        if item is not None:
            return JSONResponse({"items": catalogue.named(item)})
        loop = asyncio.get_running_loop()
        return JSONResponse({"items": await loop.run_in_executor(searching, catalogue.search, search, limit)})

    @app.get("/models", response_model=ModelsAnswer)
    async def served_models() -> Response:
        """The served models and what a request may ask for."""
        allowed = {"k": limits.k, "history": limits.history, "histories": limits.histories}
        facts = [each.facts() for each in models.by_name.values()]
        return JSONResponse({"models": facts, "default": models.default, "limits": allowed})

    @app.get("/health", response_model=HealthAnswer)
    async def health() -> Response:
        """Whether the server answers."""
        return JSONResponse({"status": "ok", "models": list(models.by_name)})

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counters in the text format of Prometheus."""
        return Response(measures.text(), headers={"content-type": CONTENT_TYPE})

    if settings.reload_token is not None:
        add_reload(app, models, Reloader(models, settings.reload_token, measures))
    app.include_router(static.router)
    paths = frozenset({*static.PAGE_FILES, "/docs", "/openapi.json", *app.openapi()["paths"]})
    describe_limits(app.openapi(), limits)
    app.add_middleware(KnownHosts, names=settings.names)
    app.add_middleware(Guard, limits=limits)
    app.add_middleware(SafeHeaders)
    app.add_middleware(Measured, measures=measures, paths=paths)
    return app


def add_reload(app: FastAPI, models: Models, reloader: Reloader) -> None:
    """Adds `/reload`.

    Args:
        app: gets the route.
        models: what is served.
        reloader: loads folders.
    """
    responses: dict[int | str, dict[str, Any]] = {
        401: {"model": ErrorAnswer, "description": "no token, or a wrong one"},
        409: {"model": ErrorAnswer, "description": "another reload is running"},
    }

    @app.post("/reload", response_model=ReloadAnswer, responses=responses)
    async def reload(asked: ReloadRequest, request: Request) -> Response:
        """Loads a newer folder in the place of a served one; needs `Authorization: Bearer TOKEN`."""
        reloader.authorize(request.headers.get("authorization"))
        newer = await reloader.reload(models.find(asked.model), asked.folder)
        return JSONResponse({"model": newer.name, "folder": newer.folder.name})
