"""A bad request gets a 4xx and one line; the server answers the next one."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from support.small_server import NUM_ITEMS, running_server, small_model
from tslrec.serving.server.app import Settings
from tslrec.serving.server.limits import Limits
from tslrec.serving.server.schemas import RecommendRequest

BODY_LIMIT = 200_000


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running_server([small_model()], Settings(Limits(body=BODY_LIMIT))) as client:
        yield client


@pytest.fixture(autouse=True)
def _still_answers(client: httpx.Client) -> Iterator[None]:
    yield
    assert client.post("/recommend", json={"histories": [["7"]]}).status_code == 200


def error_of(answer: httpx.Response, status: int) -> str:
    """The one line of an error."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert list(content) == ["error"]
    (line,) = content["error"].splitlines()
    return str(line)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"histories": [["x"]], "unknown_items": "refuse"}, "histories.0: the catalogue has no item 'x'"),
        ({"histories": [["1"], []], "cold": "refuse"}, "histories.1: no item that the catalogue knows"),
        ({"k": NUM_ITEMS + 1}, f"k={NUM_ITEMS + 1}: must be an integer from 1 to {NUM_ITEMS}"),
        ({"k": 101}, "k: 101, but this server allows at most 100"),
        ({"k": 0}, "k: Input should be greater than or equal to 1"),
        ({"k": "10"}, "k: Input should be a valid integer"),
        ({"k": 2.0}, "k: Input should be a valid integer"),
        ({"k": True}, "k: Input should be a valid integer"),
        ({"histories": None}, "histories: Input should be a valid list"),
        ({"histories": ["12"]}, "histories.0: Input should be a valid list"),
        ({"histories": {"7": ["1"]}}, "histories: Input should be a valid list"),
        ({"histories": [["1", 7.0]]}, "histories.0.1: a raw id is text of at most 500 characters, or an integer"),
        ({"histories": [[None]]}, "histories.0.0: a raw id is"),
        ({"histories": [[True]]}, "histories.0.0: a raw id is"),
        ({"histories": [["1" * 501]]}, "histories.0.0: a raw id is"),
        ({"histories": [["1"] * 10_000]}, "histories.0: 10,000, but this server allows at most 1,000"),
        ({"histories": [["1"]] * 65}, "histories: 65, but this server allows at most 64"),
        ({"only": []}, "only, without: leave no item"),
        ({"only": ["x"]}, "only: the catalogue has no item 'x'"),
        ({"without": ["1"] * 10_001}, "without: 10,001, but this server allows at most 10,000"),
        ({"unknown_items": "keep"}, "unknown_items: Input should be 'drop' or 'refuse'"),
        ({"filter_seen": "yes"}, "filter_seen: Input should be a valid boolean"),
        ({"filter": True}, "filter: Extra inputs are not permitted"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named(client: httpx.Client, change: dict[str, Any], words: str) -> None:
    assert words in error_of(client.post("/recommend", json={"histories": [["7"]], **change}), 422)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"items": ["x"]}, "items: the catalogue has no item 'x'"),
        ({"items": "7"}, "items: Input should be a valid list"),
        ({"items": ["1"] * 65}, "items: 65, but this server allows at most 64"),
        ({"k": NUM_ITEMS + 1}, "must be an integer from 1 to"),
    ],
    ids=str,
)
def test_a_wrong_value_of_similar_is_named(client: httpx.Client, change: dict[str, Any], words: str) -> None:
    assert words in error_of(client.post("/similar", json={"items": ["7"], **change}), 422)


@pytest.mark.parametrize("path", ["/recommend", "/similar"])
def test_an_unknown_model_is_404(client: httpx.Client, path: str) -> None:
    body = {"histories": [["7"]]} if path == "/recommend" else {"items": ["7"]}
    assert "there is no 'x'; this server has small" in error_of(client.post(path, json={**body, "model": "x"}), 404)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"histories": [["\\ud800"]]}', b"[" * 100_000, b"1" * 100_000],
    ids=["nothing", "cut off", "a list", "null", "no UTF-8", "half a character", "deep", "a huge number"],
)
def test_a_body_that_is_no_request_is_refused(client: httpx.Client, content: bytes) -> None:
    answer = client.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert error_of(answer, answer.status_code)
    assert answer.status_code in (400, 422)


def test_an_error_quotes_half_a_character_safely(client: httpx.Client) -> None:
    content = b'{"histories": [["1"]], "model": "\\ud800"}'
    answer = client.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (404, 422)
    assert error_of(answer, answer.status_code)


def test_another_content_type_is_refused(client: httpx.Client) -> None:
    answer = client.post("/recommend", content=b'{"histories": []}', headers={"content-type": "text/plain"})
    assert "content-type: application/json" in error_of(answer, 422)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/recommend", 405), ("DELETE", "/items", 405), ("GET", "/nothing", 404), ("POST", "/reload", 404)],
)
def test_what_is_not_there_is_said_in_one_line(client: httpx.Client, method: str, path: str, status: int) -> None:
    assert path in error_of(client.request(method, path), status)


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=many", f"search={'x' * 201}"], ids=lambda q: q[:12])
def test_a_search_is_bounded(client: httpx.Client, query: str) -> None:
    assert error_of(client.get(f"/items?{query}"), 422)


def connect(client: httpx.Client) -> socket.socket:
    """A connection of its own."""
    return socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=600)


def answer_to(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """The status and content of what comes until the server closes the connection."""
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    head, content = received.split(b"\r\n\r\n", 1)
    return int(head.split()[1]), json.loads(content)


HEAD = b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def test_an_announced_body_of_100_mb_is_refused_before_it_is_sent(client: httpx.Client) -> None:
    with connect(client) as connection:
        connection.sendall(HEAD + b"content-length: 100000000\r\n\r\n")
        # Not one byte of the body is sent.
        connection.shutdown(socket.SHUT_WR)
        assert answer_to(connection) == (
            413,
            {"error": f"body: larger than the {BODY_LIMIT:,} bytes that this server allows"},
        )


def test_a_body_without_a_length_is_refused_at_the_limit(client: httpx.Client) -> None:
    with connect(client) as connection:
        connection.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        connection.sendall(b"".join(b"10000\r\n" + b" " * 65536 + b"\r\n" for _ in range(BODY_LIMIT // 65536 + 1)))
        # The body has no end yet.
        connection.shutdown(socket.SHUT_WR)
        assert answer_to(connection)[0] == 413


def test_a_client_that_sends_100_mb_sees_the_refusal(client: httpx.Client) -> None:
    answer = client.post("/recommend", content=b" " * 100_000_000, headers={"content-type": "application/json"})
    assert "larger than" in error_of(answer, 413)


def test_what_is_no_http_is_refused(client: httpx.Client) -> None:
    with connect(client) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        status, content = answer_to(connection)
        assert status == 400
        assert list(content) == ["error"]


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        # Both forms of a raw id are wrong.
        ({"histories": [[{}] * 1000] * 1000}, 2),
        ({"histories": [0] * 100_000}, 1),
        ({"histories": [["7"]], "without": [None] * 100_000}, 2),
        ({"histories": [["7"]], **{f"name{number}": 1 for number in range(10_000)}}, 1),
    ],
    ids=["raw ids", "histories", "without", "names"],
)
def test_one_fault_is_reported_of_many(asked: dict[str, Any], most: int) -> None:
    """To collect all of them would take seconds, in which nobody else is answered."""
    with pytest.raises(ValidationError) as refused:
        RecommendRequest.model_validate(asked)
    assert refused.value.error_count() <= most
