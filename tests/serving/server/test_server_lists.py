"""A method that generates its lists is served: it recommends, and has no similar items."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from torch import Tensor

from support.small_server import NUM_ITEMS, running_server, small_catalogue
from tslrec.serving.list_engine import ListEngine
from tslrec.serving.recommender import LIST_LENGTH, Recommender
from tslrec.serving.server.models import of_recommender, warm_up
from tslrec.stages.restored import ListGenerator

LENGTH = 4


def first_items(
    items_BL: Tensor, lengths_B: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor, users_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Lists the first items that a user may get."""
    ids_BK = torch.zeros(len(lengths_B), LENGTH, dtype=torch.int64)
    for row in range(len(lengths_B)):
        seen = set(seen_items_S[seen_rows_S == row].tolist())
        ids_BK[row] = torch.tensor([item for item in range(1, NUM_ITEMS + 1) if item not in seen][:LENGTH])
    return ids_BK, -ids_BK.float()


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    engine = ListEngine(ListGenerator(first_items, LENGTH, NUM_ITEMS, 5))
    recommender = Recommender(engine, small_catalogue(), {"method": "pod", LIST_LENGTH: LENGTH})
    warm_up(recommender)
    with running_server([of_recommender(recommender, "pod", Path("/nowhere"))]) as client:
        yield client


def test_it_recommends(client: httpx.Client) -> None:
    answer = client.post("/recommend", json={"histories": [["2", "1"]], "k": LENGTH})
    assert answer.status_code == 200, answer.text
    assert [each["item"] for each in answer.json()["lists"][0]["items"]] == ["3", "4", "5", "6"]


def test_longer_lists_and_similar_items_are_refused(client: httpx.Client) -> None:
    longer = client.post("/recommend", json={"histories": [["2"]], "k": LENGTH + 1})
    assert (longer.status_code, longer.json()) == (
        422,
        {"error": "k=5: pod generates lists of 4 items; ask for as many or fewer"},
    )
    near = client.post("/similar", json={"items": ["2"], "k": LENGTH})
    assert near.status_code == 422
    assert "has no item vectors" in near.json()["error"]
