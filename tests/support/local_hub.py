"""A server on this machine that acts as the model hub."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tslrec.settings.language_models import LLMConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "people/model"


@dataclass
class Hub:
    """The local hub.

    Attributes:
        url: its address.
        files: the content of each file of the repository, by name.
        gated: whether it refuses every request, as the hub does where a licence was not accepted.
        asked: the paths of all requests so far.
    """

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False
    asked: list[str] = field(default_factory=list)


@contextmanager
def local_hub(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
    """Serves the part of the hub's protocol that a download needs, and makes the hub's client ask this server."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            content = self.content()
            server.asked.append(self.path)
            if server.gated:
                self.send_response(403)
                self.send_header("X-Error-Code", "GatedRepo")
            elif content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if REPOSITORY in self.path else "RepoNotFound")
            else:
                self.send_response(200)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{len(content)}"')
            sent = content if content is not None and not server.gated else b""
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            if body:
                self.wfile.write(sent)

        def content(self) -> bytes | None:
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{REPOSITORY}/revision/"):
                siblings = [{"rfilename": name} for name in server.files]
                return json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode()
            if path.startswith(f"/api/models/{REPOSITORY}/tree/"):
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": f"{len(content):040d}"}
                    for name, content in server.files.items()
                ]
                return json.dumps(tree).encode()
            if path.startswith(f"/{REPOSITORY}/resolve/"):
                return server.files.get(path.split("/", 5)[5])
            return None

        def log_message(self, format: str, *args: object) -> None:
            """Prints nothing."""

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Hub(f"http://127.0.0.1:{listener.server_port}")
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    use_hub(monkeypatch, server.url, cache)
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Makes the hub's client use an address and an empty cache.

    Environment variables would come too late: the client reads them when it is imported.
    """
    from huggingface_hub import constants, hf_api

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hf_api.api, "endpoint", url)


def hub_config(**changes: object) -> LLMConfig:
    """The configuration of a language model whose weights are in the repository of the local hub."""
    return LLMConfig(**{"name": "ours", "hub": REPOSITORY, "revision": "main", **changes})  # type: ignore[arg-type]
