"""docs/serving.md says what the server does: requests are answered, commands parse, limits are the defaults."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from support.checkout import CHECKOUT
from support.small_server import small_model, write_small_export
from tslrec.cli.serve import add_arguments
from tslrec.serving.server import process
from tslrec.serving.server.app import Settings, create_app
from tslrec.serving.server.limits import Limits
from tslrec.serving.server.models import Models, open_model

PAGE = (CHECKOUT / "docs" / "serving.md").read_text(encoding="utf-8")
CURLS = [line for line in PAGE.splitlines() if line.startswith("curl ")]
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server of a folder `beauty`, beside which is `beauty-2`, as on the page."""
    folder = tmp_path_factory.mktemp("exported")
    write_small_export(folder / "beauty")
    write_small_export(folder / "beauty-2", seed=1)
    models = Models([open_model(folder / "beauty", "beauty")])
    with TestClient(create_app(models, Settings(reload_token=TOKEN))) as client:
        yield client


def test_there_are_requests() -> None:
    assert len(CURLS) == 8


@pytest.mark.parametrize("line", CURLS)
def test_a_request_of_the_page_is_answered(client: TestClient, line: str) -> None:
    _, url, *options = shlex.split(line.replace("$(cat token.txt)", TOKEN))
    path = url.removeprefix("http://127.0.0.1:8000")
    assert path != url
    given = dict(zip(options[::2], options[1::2], strict=True))
    if "--json" not in given:
        assert client.get(path).status_code == 200
        return
    headers = {"content-type": "application/json"}
    if "-H" in given:
        name, value = given["-H"].split(": ")
        headers[name] = value
    answer = client.post(path, content=given["--json"].encode(), headers=headers)
    assert answer.status_code == 200, answer.text


def parsed(words: list[str]) -> argparse.Namespace:
    """The arguments of `tslrec serve`."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser)
    return parser.parse_args(words)


def test_the_commands_of_docker_and_systemd_parse() -> None:
    (compose,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    service = yaml.safe_load(compose)["services"]["recommender"]
    dockerfile = (CHECKOUT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", dockerfile, flags=re.MULTILINE)
    program, verb, *words = yaml.safe_load(entry)
    assert (program, verb) == ("tslrec", "serve")
    assert parsed([*words, *service["command"]]).folders == [Path("/models/beauty")]
    (start,) = re.findall(r"^ExecStart=\S+/tslrec serve (.*)$", PAGE, flags=re.MULTILINE)
    assert parsed(start.split()).host == "127.0.0.1"
    # Longer than a server takes to end.
    allowed = int(service["stop_grace_period"].rstrip("s"))
    assert allowed > process.DRAIN_SECONDS + process.FINISH_SECONDS
    assert f"TimeoutStopSec={allowed}\n" in PAGE


def test_the_limits_of_the_page_are_those_of_the_command() -> None:
    defaults, limits = parsed(["folder"]), Limits()
    assert (defaults.max_body, defaults.max_history) == (limits.body, limits.history)
    assert (defaults.max_k, defaults.concurrency) == (limits.k, limits.concurrency)
    assert (defaults.batch_ms / 1000, defaults.max_batch) == (Settings().batch_seconds, Settings().max_batch)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")
    ]
    said = {row[0]: row[1] for row in rows if len(row) == 4}
    assert said["bytes of a body"] == f"{limits.body // 2**20} MiB"
    assert said["items of a history"] == f"{limits.history:,}"
    assert said["length of a list"] == str(limits.k)
    assert said["histories of a request"] == str(limits.histories)
    assert said["ids in `only` or `without`"] == f"{limits.filter:,}"
    assert said["requests that are computed or wait"] == str(limits.concurrency)
    assert said["open connections"] == str(process.CONNECTIONS)
    assert said["time for a request's head, and for its body"] == f"{limits.body_seconds:g} s each"
    assert limits.body_seconds == process.HEAD_SECONDS


def test_the_fields_of_the_page_are_those_of_a_request() -> None:
    app = create_app(Models([small_model()]), Settings())
    fields = app.openapi()["components"]["schemas"]["RecommendRequest"]["properties"]
    table = PAGE.split("| field of the request |")[1].split("\n\n")[0]
    named = re.findall(r"^\| (`.*?`) \|", table, flags=re.MULTILINE)
    assert {name for cell in named for name in re.findall(r"`(\w+)`", cell)} == set(fields)
