"""Requests are computed together, and each gets the answer that it would get alone."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.small_server import NUM_ITEMS, running_server, small_model, small_recommender
from support.waiting import HANG_SECONDS
from tslrec.serving.server.app import Settings
from tslrec.serving.server.batching import Alike, Batcher
from tslrec.serving.server.models import Served

HOUR = 3600.0


def alike(served: Served, **changes: Any) -> Alike:
    """A question for three items."""
    values = {"k": 3, "filter_seen": True, "cold": "skip", "only": None, "without": None, **changes}
    return Alike(served, **values)


class Gate:
    """Holds the worker until it is opened.

    Attributes:
        begun: set once the worker has come to the gate.
    """

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.open.wait(HANG_SECONDS)


def together(
    questions: list[tuple[Alike, list[list[int]]]], gate: Gate, wait_seconds: float = 0, max_histories: int = 64
) -> tuple[list[Any], list[int]]:
    """Asks one question, and the others while the worker computes it.

    Returns:
        Each one's answer or error, and the numbers of histories of the batches.
    """
    sizes: list[int] = []

    async def ask() -> list[Any]:
        batcher = Batcher(wait_seconds, max_histories, sizes.append)
        batcher.start()
        first = asyncio.create_task(batcher.ask(*questions[0]))
        await asyncio.to_thread(gate.begun.wait, HANG_SECONDS)
        others = [asyncio.create_task(batcher.ask(*each)) for each in questions[1:]]
        await asyncio.sleep(0)
        gate.open.set()
        answers = await asyncio.gather(first, *others, return_exceptions=True)
        await batcher.stop()
        return answers

    return asyncio.run(ask()), sizes


def ids_of(answer: Any) -> list[list[int]]:
    """The item numbers of an answer."""
    found: list[list[int]] = answer[0].tolist()
    return found


def test_requests_that_wait_are_computed_together() -> None:
    gate = Gate()
    served = small_model(before=gate)
    histories = [[[item]] for item in range(1, 8)]
    answers, sizes = together([(alike(served), each) for each in histories], gate)
    assert sizes == [1, 6]
    alone = small_model()
    assert [ids_of(each) for each in answers] == [alike(alone).compute(each)[0].tolist() for each in histories]


def test_requests_that_ask_otherwise_are_computed_apart() -> None:
    gate = Gate()
    one, other = small_model("one", before=gate), small_model("other", seed=1)
    questions = [alike(one), alike(one), alike(other), alike(one, k=4), alike(one, only=("1", "2")), alike(one)]
    answers, sizes = together([(each, [[7]]) for each in questions], gate)
    assert sizes == [1, 2, 1, 1, 1]
    assert [len(ids_of(each)[0]) for each in answers] == [3, 3, 3, 4, 3, 3]
    assert ids_of(answers[4]) == [[1, 2, 0]] or ids_of(answers[4]) == [[2, 1, 0]]
    assert ids_of(answers[1]) != ids_of(answers[2])


def test_a_batch_has_at_most_the_allowed_number_of_histories() -> None:
    gate = Gate()
    served = small_model(before=gate)
    questions = [(alike(served), [[1]] * size) for size in (1, 3, 3, 2, 9, 1)]
    answers, sizes = together(questions, gate, max_histories=5)
    assert sizes == [1, 5, 4, 9]
    assert [len(ids_of(each)) for each in answers] == [1, 3, 3, 2, 9, 1]


def test_an_error_reaches_those_alone_that_asked_for_it() -> None:
    gate = Gate()
    served = small_model(before=gate)
    questions = [(alike(served), [[1]]), (alike(served, only=("x",)), [[1]]), (alike(served), [[2]])]
    answers, _ = together(questions, gate)
    assert "only: the catalogue has no item 'x'" in str(answers[1])
    assert len(ids_of(answers[2])) == 1


def test_a_request_that_finds_the_worker_idle_does_not_wait_for_others() -> None:
    async def ask() -> None:
        batcher = Batcher(HOUR, 64, lambda histories: None)
        batcher.start()
        await batcher.ask(alike(small_model()), [[1]])
        await batcher.stop()

    asyncio.run(asyncio.wait_for(ask(), HANG_SECONDS))


def test_a_full_batch_does_not_wait_for_others() -> None:
    gate = Gate()
    served = small_model(before=gate)
    _, sizes = together([(alike(served), [[1]])] * 5, gate, wait_seconds=HOUR, max_histories=4)
    assert sizes == [1, 4]


def test_a_busy_worker_takes_what_comes_within_the_window() -> None:
    gate = Gate()
    served = small_model(before=gate)
    _, sizes = together([(alike(served), [[1]])] * 3, gate, wait_seconds=0.01)
    assert sizes == [1, 2]


@pytest.mark.parametrize("batch_seconds", [0.0, 0.002])
def test_many_clients_at_once_get_the_answers_of_single_requests(batch_seconds: float) -> None:
    recommender, draw = small_recommender(), random.Random(0)
    bodies: list[dict[str, Any]] = []
    for _ in range(300):
        history = [str(draw.randint(1, NUM_ITEMS + 3)) for _ in range(draw.randint(0, 8))]
        bodies.append({"histories": [history], "k": draw.choice([3, 10]), "filter_seen": draw.random() < 0.7})

    def expected(body: dict[str, Any]) -> list[tuple[Any, ...]]:
        return recommender.recommend(**body).drop("user").rows()

    def asker(client: httpx.Client) -> Callable[[dict[str, Any]], list[tuple[Any, ...]]]:
        def ask(body: dict[str, Any]) -> list[tuple[Any, ...]]:
            answer = client.post("/recommend", json=body)
            assert answer.status_code == 200, answer.text
            (found,) = answer.json()["lists"]
            return [(each["item"], each["score"], each["rank"]) for each in found["items"]]

        return ask

    with (
        running_server([small_model()], Settings(batch_seconds=batch_seconds)) as client,
        ThreadPoolExecutor(16) as clients,
    ):
        assert list(clients.map(asker(client), bodies)) == [expected(body) for body in bodies]
        metrics = client.get("/metrics").text
    batches = float(metrics.split("tslrec_batch_histories_count ")[1].split()[0])
    assert batches < len(bodies)
