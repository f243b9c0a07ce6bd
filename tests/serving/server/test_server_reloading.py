"""A newer folder takes the place of a served one while requests run."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.small_server import NUM_ITEMS, running_server, small_recommender, write_small_export
from support.waiting import HANG_SECONDS
from tslrec import load
from tslrec.serving.folder import ITEM_TABLE
from tslrec.serving.server import reloading
from tslrec.serving.server.app import Settings
from tslrec.serving.server.models import Served, of_recommender, open_model
from tslrec.serving.server.reloading import read_token
from tslrec.system.errors import UserError

pytestmark = pytest.mark.slow

TOKEN = "correct-horse-battery-staple"
BEARER = {"authorization": f"Bearer {TOKEN}"}
BODY: dict[str, Any] = {"histories": [["7", "12"]], "k": NUM_ITEMS}


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """A folder with two exports of different weights, `old` and `new`, beside each other."""
    for seed, name in enumerate(("old", "new")):
        write_small_export(tmp_path / "exports" / name, seed)
    return tmp_path / "exports"


@pytest.fixture
def client(exports: Path) -> Iterator[httpx.Client]:
    with running_server([open_model(exports / "old", "old")], Settings(reload_token=TOKEN)) as client:
        yield client


def recommended(answer: httpx.Response) -> list[str]:
    """The items of the first list."""
    assert answer.status_code == 200, answer.text
    return [each["item"] for each in answer.json()["lists"][0]["items"]]


def expected(folder: Path) -> list[str]:
    """The items that a folder's recommender recommends."""
    return load(folder).recommend(**BODY)["item"].to_list()


def test_a_folder_beside_the_served_one_takes_its_place(client: httpx.Client, exports: Path) -> None:
    assert recommended(client.post("/recommend", json=BODY)) == expected(exports / "old")
    answer = client.post("/reload", json={"model": "old", "folder": "new"}, headers=BEARER)
    assert (answer.status_code, answer.json()) == (200, {"model": "old", "folder": "new"})
    assert recommended(client.post("/recommend", json=BODY)) == expected(exports / "new")
    assert expected(exports / "new") != expected(exports / "old")
    assert client.get("/health").json()["models"] == ["old"]
    assert client.get("/models").json()["models"][0]["seed"] == 1


def test_the_same_path_is_read_again(client: httpx.Client, exports: Path) -> None:
    (exports / "old").rename(exports / "older")
    shutil.copytree(exports / "new", exports / "old")
    assert client.post("/reload", json={}, headers=BEARER).status_code == 200
    assert recommended(client.post("/recommend", json=BODY)) == expected(exports / "new")


@pytest.mark.parametrize(
    "headers",
    [{}, *({"authorization": value} for value in ("", TOKEN, "Bearer", f"Basic {TOKEN}"))]
    + [{"authorization": f"Bearer {token}"} for token in (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "Bearer")],
    ids=str,
)
def test_without_the_token_nothing_is_loaded(client: httpx.Client, exports: Path, headers: dict[str, str]) -> None:
    answer = client.post("/reload", json={"folder": "new"}, headers=headers)
    assert answer.status_code == 401
    assert answer.json() == {"error": "reload: needs Authorization: Bearer TOKEN"}
    assert answer.headers["www-authenticate"] == "Bearer"
    assert recommended(client.post("/recommend", json=BODY)) == expected(exports / "old")


@pytest.mark.parametrize(
    "name", ["../exports/new", "..", ".", "", "/etc", "new/", "..\\new", "new\0", "sub/../new", "\ud800"], ids=ascii
)
def test_a_path_instead_of_a_name_is_refused(client: httpx.Client, exports: Path, name: str) -> None:
    # httpx cannot send half a character as text; JSON can name it.
    content = json.dumps({"folder": name}).encode("ascii")
    answer = client.post("/reload", content=content, headers={**BEARER, "content-type": "application/json"})
    assert answer.status_code == 422
    assert list(answer.json()) == ["error"]
    assert recommended(client.post("/recommend", json=BODY)) == expected(exports / "old")


def test_a_broken_folder_is_refused_and_the_old_model_stays(client: httpx.Client, exports: Path) -> None:
    table = exports / "new" / ITEM_TABLE
    table.write_bytes(table.read_bytes()[:-1] + b"x")
    (exports / "empty").mkdir()
    for name, words in (("new", ITEM_TABLE), ("empty", "no recommender"), ("absent", "no such folder")):
        answer = client.post("/reload", json={"folder": name}, headers=BEARER)
        assert answer.status_code == 422
        assert words in answer.json()["error"]
        assert "\n" not in answer.json()["error"]
    assert recommended(client.post("/recommend", json=BODY)) == expected(exports / "old")
    metrics = client.get("/metrics").text
    assert 'tslrec_reloads_total{result="failed"} 3.0' in metrics
    assert 'tslrec_reloads_total{result="done"} 0.0' in metrics


def test_an_unknown_model_is_404(client: httpx.Client) -> None:
    assert client.post("/reload", json={"model": "x"}, headers=BEARER).status_code == 404


def test_a_request_that_runs_is_finished_by_the_old_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a second reload meanwhile is refused."""
    computing, go, loading, loaded = (threading.Event() for _ in range(4))

    def hold() -> None:
        computing.set()
        assert go.wait(HANG_SECONDS)

    def open_newer(folder: Path, name: str, engine: str) -> Served:
        loading.set()
        assert loaded.wait(HANG_SECONDS)
        return of_recommender(small_recommender(seed=1), name, folder)

    monkeypatch.setattr(reloading, "open_model", open_newer)
    old = of_recommender(small_recommender(before=hold), "old", Path("/nowhere/old"))
    with running_server([old], Settings(reload_token=TOKEN)) as client, ThreadPoolExecutor(2) as threads:
        running = threads.submit(client.post, "/recommend", json=BODY)
        assert computing.wait(HANG_SECONDS)
        reloading_answer = threads.submit(client.post, "/reload", json={}, headers=BEARER)
        assert loading.wait(HANG_SECONDS)
        assert client.post("/reload", json={}, headers=BEARER).status_code == 409
        loaded.set()
        assert reloading_answer.result().status_code == 200
        # The new model is there, the old one still computes.
        assert client.get("/models").json()["models"][0]["seed"] == 1
        assert not running.done()
        go.set()
        assert recommended(running.result()) == small_recommender(seed=0).recommend(**BODY)["item"].to_list()
        assert recommended(client.post("/recommend", json=BODY)) == (
            small_recommender(seed=1).recommend(**BODY)["item"].to_list()
        )


def test_no_request_is_lost_while_folders_are_swapped(client: httpx.Client, exports: Path) -> None:
    allowed = [expected(exports / "old"), expected(exports / "new")]
    stop = threading.Event()

    def ask() -> int:
        count = 0
        while not stop.is_set():
            assert recommended(client.post("/recommend", json=BODY)) in allowed
            count += 1
        return count

    with ThreadPoolExecutor(8) as threads:
        asking = [threads.submit(ask) for _ in range(8)]
        try:
            for name in ("new", "old") * 4:
                assert client.post("/reload", json={"folder": name}, headers=BEARER).status_code == 200
        finally:
            stop.set()
        assert all(each.result() > 0 for each in asking)
    assert 'tslrec_reloads_total{result="done"} 8.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    "content", [b"short", b"", b"with a blank in it, long", b"\xff" * 20, "ü".encode() * 20], ids=str
)
def test_a_weak_token_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(UserError, match="token"):
        read_token(path)


def test_the_token_comes_from_the_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(reloading.TOKEN_VARIABLE, raising=False)
    assert read_token(None) is None
    monkeypatch.setenv(reloading.TOKEN_VARIABLE, "from-the-environment")
    assert read_token(None) == "from-the-environment"
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
    with pytest.raises(UserError, match="no readable token"):
        read_token(tmp_path / "absent")
