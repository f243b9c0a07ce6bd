"""On loopback the server answers only to names of this machine, and to those that the command line adds."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.small_server import running_server, small_model
from tslrec.cli.main import run
from tslrec.serving.server.app import Settings
from tslrec.serving.server.hosts import name_in, names_for
from tslrec.system.errors import UserError


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running_server([small_model()], Settings(names=names_for("127.0.0.1", ["shop.example"]))) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["127.0.0.1:80", "localhost", "LOCALHOST:8000", "localhost.", "[::1]:8000", "shop.example:443"]
)
def test_a_name_of_this_machine_is_answered(host: str, client: httpx.Client) -> None:
    assert client.get("/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "[::2]"])
def test_another_name_is_refused(host: str, client: httpx.Client) -> None:
    answer = client.get("/models", headers={"host": host})
    assert answer.status_code == 421
    assert answer.json() == {
        "error": f"host: this server is not {name_in(host)}; --allow-host lets it answer to a name"
    }


def test_where_others_can_reach_it_every_name_is_answered() -> None:
    assert names_for("0.0.0.0") is None
    assert names_for("::") is None
    assert names_for("192.0.2.7") is None
    assert "127.0.0.2" in (names_for("127.0.0.2") or ())


def test_a_name_for_a_server_that_answers_to_all_is_refused() -> None:
    with pytest.raises(UserError, match=r"--allow-host: 0\.0\.0\.0 is not loopback, where every name is answered"):
        run(["serve", "nowhere", "--host", "0.0.0.0", "--port", "0", "--allow-host", "shop.example"])
