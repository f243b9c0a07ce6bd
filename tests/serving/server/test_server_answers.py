"""What the server answers is what the recommender says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from support.small_server import MAX_LEN, NUM_ITEMS, small_model, small_recommender
from tslrec.serving.server.app import Settings, create_app
from tslrec.serving.server.models import Models

HISTORIES: list[list[str | int]] = [["7", "12"], ["1"], [], [3, "4", 5, "6", "7", "8", "9"], ["nothing"], ["2", "none"]]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Models([small_model("first"), small_model("second", seed=1)]), Settings())) as client:
        yield client


def lists_of(frame: pl.DataFrame, users: int) -> list[list[tuple[Any, ...]]]:
    """Item, score and rank of each user's list."""
    return [frame.filter(pl.col("user") == user).drop("user").rows() for user in range(users)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": NUM_ITEMS},
        {"k": 3, "filter_seen": False},
        {"only": ["7", "12", 5, "20"], "k": 10},
        {"without": ["3", 4, "9"], "cold": "skip"},
        {"only": ["1", "2", "3"], "without": ["2"], "k": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", ["first", "second"])
def test_recommend_answers_what_the_recommender_recommends(
    client: TestClient, model: str, options: dict[str, Any]
) -> None:
    answer = client.post("/recommend", json={"histories": HISTORIES, "model": model, **options})
    assert answer.status_code == 200, answer.text
    recommender = small_recommender(seed=["first", "second"].index(model))
    expected = recommender.recommend(HISTORIES, **{"k": 10, **options})
    content = answer.json()
    assert content["model"] == model
    found = [[(each["item"], each["score"], each["rank"]) for each in one["items"]] for one in content["lists"]]
    assert found == lists_of(expected, len(HISTORIES))
    assert [one["unknown"] for one in content["lists"]] == [0, 0, 0, 0, 1, 1]
    assert [one["cold"] for one in content["lists"]] == [False, False, True, False, True, False]


def test_every_item_comes_with_its_title_or_null(client: TestClient) -> None:
    content = client.post("/recommend", json={"histories": [["1"]], "k": NUM_ITEMS}).json()
    titles = {each["item"]: each["title"] for each in content["lists"][0]["items"]}
    items = small_recommender().catalogue.items.slice(1)
    assert titles == {item: title for item, title in items.select("raw_id", "title").rows() if item != "1"}
    assert None in titles.values()


def test_a_history_longer_than_the_model_reads_is_left_out_as_a_whole(client: TestClient) -> None:
    history = [str(item) for item in range(1, MAX_LEN + 6)]
    content = client.post("/recommend", json={"histories": [history], "k": NUM_ITEMS}).json()
    found = {each["item"] for each in content["lists"][0]["items"]}
    assert found == {str(item) for item in range(1, NUM_ITEMS + 1)} - set(history)


def test_no_history_gives_no_list(client: TestClient) -> None:
    assert client.post("/recommend", json={"histories": []}).json()["lists"] == []


@pytest.mark.parametrize("options", [{}, {"k": 3, "only": ["7", 8, "9"]}, {"without": ["1", "2"]}], ids=str)
def test_similar_answers_what_the_recommender_finds(client: TestClient, options: dict[str, Any]) -> None:
    items = ["7", 12, "7"]
    content = client.post("/similar", json={"items": items, **options}).json()
    expected = small_recommender().similar(["7", "12"], **options)
    assert [each["item"] for each in content["lists"]] == ["7", "12", "7"]
    for each in content["lists"]:
        rows = [(near["item"], near["cosine"], near["rank"]) for near in each["items"]]
        assert rows == expected.filter(pl.col("item") == each["item"]).drop("item").rows()


def test_an_item_without_neighbours_has_an_empty_list(client: TestClient) -> None:
    content = client.post("/similar", json={"items": ["7", "8"], "only": ["7"]}).json()
    assert [len(each["items"]) for each in content["lists"]] == [0, 1]


def test_items_are_found_by_words_and_without_words_by_frequency(client: TestClient) -> None:
    catalogue = small_recommender().catalogue
    found = client.get("/items", params={"search": "THING green", "limit": 3}).json()["items"]
    assert found == catalogue.search("thing green", 3)
    assert all("green" in each["title"] for each in found)
    popular = client.get("/items").json()["items"]
    assert [each["item"] for each in popular] == [str(item) for item in catalogue.most_popular[:20]]


def test_models_says_what_is_served_and_what_is_allowed(client: TestClient) -> None:
    content = client.get("/models").json()
    assert [each["name"] for each in content["models"]] == ["first", "second"]
    assert content["models"][1] == {
        "name": "second",
        "method": "base",
        "model": "sasrec",
        "data": "made",
        "seed": 1,
        "metrics": {"test/masked/HR@10": 0.5},
        "items": NUM_ITEMS,
        "max_len": MAX_LEN,
        "engine": "table",
    }
    assert content["default"] == "first"
    assert content["limits"] == {"k": 100, "history": 1000, "histories": 64}


def test_health_names_the_models(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "models": ["first", "second"]}


def test_the_docs_load_nothing_from_another_server(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "POST /recommend" in page.text
    assert not re.search(r"<script|<link|https?://", page.text)
    assert client.get("/openapi.json").json()["info"]["title"] == "TSLRec"


def test_the_description_has_the_servers_limits(client: TestClient) -> None:
    fields = client.get("/openapi.json").json()["components"]["schemas"]["RecommendRequest"]["properties"]
    assert fields["k"]["maximum"] == 100
    assert fields["histories"]["maxItems"] == 64
    assert fields["histories"]["items"]["maxItems"] == 1000


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/nothing", "/models"])
def test_every_answer_forbids_foreign_content(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'self'")
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/page/index.html", "/page.css/../app.py", "/%2e%2e/app.py", "/index.html"])
def test_only_the_files_of_the_page_are_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
