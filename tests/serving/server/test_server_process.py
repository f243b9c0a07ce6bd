"""The server as a process: its port, slow and many clients, and an end that loses no request."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from support.checkout import PYTHONPATH
from support.imported_packages import run_and_list_imports
from support.small_server import running_server, small_model, write_small_export
from support.waiting import HANG_SECONDS, wait_until
from tslrec.cli.main import main
from tslrec.serving.server import process
from tslrec.serving.server.app import Settings, create_app
from tslrec.serving.server.limits import Limits
from tslrec.serving.server.models import Models, names_of
from tslrec.serving.server.process import listen
from tslrec.system.errors import UserError

pytestmark = pytest.mark.slow

BODY = json.dumps({"histories": [["7", "12"]], "k": 3})
JSON = {"content-type": "application/json"}


def start(*words: str) -> tuple[subprocess.Popen[str], int]:
    """Starts a program that serves, and waits until it says where.

    Args:
        words: arguments of Python.

    Returns:
        The process and its port.
    """
    program = subprocess.Popen(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    for line in program.stdout:
        if line.startswith("serving at "):
            return program, int(line.rsplit(":", 1)[1])
    raise AssertionError(program.communicate()[1])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`tslrec serve` of a small export."""
    program, port = start("-m", "tslrec.cli.main", "serve", str(write_small_export(tmp_path / "small")), "--port", "0")
    yield program, port
    program.kill()
    program.communicate()


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line with which `tslrec serve` ends."""
    with pytest.raises(SystemExit) as ended:
        main(["serve", *arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_second_server_on_a_port_is_refused_at_once(
    served: tuple[subprocess.Popen[str], int], capsys: pytest.CaptureFixture[str]
) -> None:
    # The folder does not exist: the port is looked at before anything is loaded.
    line = refusal(capsys, "absent", "--port", str(served[1]))
    assert line == (
        f"error: 127.0.0.1:{served[1]}: cannot listen there (Address already in use); choose another --port or --host"
    )


def test_the_server_listens_on_loopback_alone_and_ends_with_0(served: tuple[subprocess.Popen[str], int]) -> None:
    program, port = served
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # State 0A is LISTEN; the address is 127.0.0.1 in reversed hexadecimal.
    listening = [row[1] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]
    assert listening == [f"0100007F:{port:04X}"]
    program.send_signal(signal.SIGTERM)
    out, err = program.communicate(timeout=HANG_SECONDS)
    assert (program.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "stopped; every accepted request was answered"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent", "--port", "70000"], "--port 70000: must be from 0 to 65535"),
        (["absent", "--port", "0"], "absent: there is no such folder"),
        (["absent", "--port", "0", "--engine", "abacus"], "engine=abacus: must be one of auto, pytorch"),
        (["absent", "--batch-ms", "-1"], "--batch-ms -1: must be from 0 to 1000"),
        (["absent", "--max-k", "0"], "--max-k 0: must be at least 1"),
        (["absent", "--host", "no.such.host.invalid", "--port", "0"], "cannot listen there"),
        (["absent", "--reload-token-file", "nothing"], "nothing: no readable token"),
        ([], "the following arguments are required: FOLDER"),
    ],
    ids=str,
)
def test_what_cannot_be_served_ends_in_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert words in refusal(capsys, *arguments)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    ended = run_and_list_imports("tslrec", "serve", "--help", folder=tmp_path)
    assert (ended.code, ended.heavy) == (0, [])
    assert "FOLDER" in ended.out


def test_folders_of_one_name_get_numbers() -> None:
    assert names_of([Path("a/x"), Path("b/x"), Path("y/"), Path("c/x")]) == ["x", "x-2", "y", "x-3"]


def test_a_client_that_sends_its_head_slowly_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "HEAD_SECONDS", 0.05)
    with running_server([small_model()]) as client:
        for begin in (b"", b"POST /recommend HT", b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /he"):
            with connect(client.base_url.port) as connection:
                connection.sendall(begin)
                answer = until_closed(connection)
                assert answer.count(b"HTTP/1.1 200 OK") == begin.count(b"\r\n\r\n")
        assert client.get("/health").status_code == 200


def test_a_client_that_sends_its_body_slowly_gets_408() -> None:
    with running_server([small_model()], Settings(Limits(body_seconds=0.05))) as client:
        with connect(client.base_url.port) as connection:
            connection.sendall(b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
            head, content = until_closed(connection).split(b"\r\n\r\n", 1)
            assert head.startswith(b"HTTP/1.1 408 ")
            assert json.loads(content) == {"error": "body: not complete after 0.05 s"}
        assert client.get("/health").status_code == 200


def test_slow_clients_take_no_places() -> None:
    with running_server([small_model()], Settings(Limits(concurrency=1))) as client:
        slow = [connect(client.base_url.port) for _ in range(5)]
        for connection in slow:
            connection.sendall(b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert client.post("/recommend", content=BODY, headers=JSON).status_code == 200
        for connection in slow:
            connection.close()


def test_a_client_that_leaves_disturbs_nobody() -> None:
    with running_server([small_model()]) as client:
        for content in (b"{", b""):
            with connect(client.base_url.port) as connection:
                connection.sendall(b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n" + content)
        assert client.post("/recommend", content=BODY, headers=JSON).status_code == 200


def test_more_requests_than_allowed_get_503_and_are_told_to_try_again() -> None:
    computing, go = threading.Event(), threading.Event()

    def hold() -> None:
        computing.set()
        assert go.wait(HANG_SECONDS)

    with (
        running_server([small_model(before=hold)], Settings(Limits(concurrency=1))) as client,
        ThreadPoolExecutor(1) as threads,
    ):
        running = threads.submit(client.post, "/recommend", content=BODY, headers=JSON)
        assert computing.wait(HANG_SECONDS)
        refused = client.post("/recommend", content=BODY, headers=JSON)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "busy: 1 requests are running" in refused.json()["error"]
        # Who watches the server is answered.
        assert client.get("/health").status_code == 200
        assert client.get("/metrics").status_code == 200
        go.set()
        assert running.result().status_code == 200
        assert client.post("/recommend", content=BODY, headers=JSON).status_code == 200


def test_more_connections_than_allowed_get_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CONNECTIONS", 2)
    with running_server([small_model()]) as client:
        held = [connect(client.base_url.port) for _ in range(2)]
        with connect(client.base_url.port) as third:
            assert until_closed(third).startswith(b"HTTP/1.1 503 ")
        for connection in held:
            connection.close()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(UserError, match=r"192\.0\.2\.1:0: cannot listen there"):
        listen("192.0.2.1", 0)


def connect(port: int | None) -> socket.socket:
    """A connection to a server."""
    assert port is not None
    return socket.create_connection(("127.0.0.1", port), timeout=HANG_SECONDS)


def until_closed(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    parts = []
    # A connection that is dropped is reset.
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


HELD_SERVER = """
import sys, time
from pathlib import Path
from support.small_server import small_model
from tslrec.serving.server.app import Settings, create_app
from tslrec.serving.server.models import Models
from tslrec.serving.server.process import listen, make_server

folder = Path(sys.argv[1])

def hold():
    (folder / "computing").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)

listening = listen("127.0.0.1", 0)
app = create_app(Models([small_model(before=hold)]), Settings())
port = listening.getsockname()[1]
make_server(app, lambda: print(f"serving at http://127.0.0.1:{port}", flush=True)).run(sockets=[listening])
"""
"""A server whose computations wait for a file."""


def test_sigterm_lets_requests_finish(tmp_path: Path) -> None:
    """Those that are computed and those that wait, whose answers come long after the signal."""
    (tmp_path / "server.py").write_text(HELD_SERVER)
    program, port = start(str(tmp_path / "server.py"), str(tmp_path))
    try:
        connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS) for _ in range(5)]
        for connection in connections:
            connection.request("POST", "/recommend", BODY, JSON)
        wait_until((tmp_path / "computing").exists, "the first request is computed", program)
        program.send_signal(signal.SIGTERM)
        wait_until(lambda: not accepts(port), "the server accepts no connections", program)
        assert program.poll() is None
        (tmp_path / "go").touch()
        answers = [connection.getresponse() for connection in connections]
        assert [answer.status for answer in answers] == [200] * 5
        assert all(len(json.loads(answer.read())["lists"][0]["items"]) == 3 for answer in answers)
        assert {answer.getheader("connection") for answer in answers} == {"close"}
        _, err = program.communicate(timeout=HANG_SECONDS)
        assert (program.returncode, err) == (0, "")
    finally:
        program.kill()
        program.communicate()


def accepts(port: int) -> bool:
    """Whether a server accepts connections."""
    try:
        connect(port).close()
    except ConnectionError:
        return False
    return True


def test_sigterm_under_load_loses_no_request(served: tuple[subprocess.Popen[str], int]) -> None:
    """Clients keep their connections alive and send one request after the other until no connection is accepted."""
    program, port = served
    asked = threading.Barrier(5)

    def ask() -> list[Any]:
        ended: list[Any] = []
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
        while True:
            if len(ended) == 20:
                asked.wait(HANG_SECONDS)
            try:
                # It connects here if the last answer closed the connection.
                if connection.sock is None:
                    connection.connect()
            except ConnectionError:
                return ended
            connection.request("POST", "/recommend", BODY, JSON)
            answer = connection.getresponse()
            answer.read()
            ended.append(answer.status)

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        asked.wait(HANG_SECONDS)
        program.send_signal(signal.SIGTERM)
        answers = [each.result(HANG_SECONDS) for each in asking]
    assert program.wait(HANG_SECONDS) == 0
    assert all(len(each) >= 20 and set(each) == {200} for each in answers)


def test_connections_that_wait_to_be_accepted_are_answered_after_sigterm() -> None:
    """The loop is held while they connect, so that they wait in the kernel when the server is told to end."""
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = process.make_server(create_app(Models([small_model()]), Settings()))
    held: list[socket.socket] = []

    def hold() -> None:
        # It runs in the loop's thread, so nothing is accepted until it has returned.
        for _ in range(5):
            held.append(connect(port))
            held[-1].sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")

    async def stop_then_connect() -> None:
        hold()
        await uvicorn_shutdown([listening])

    uvicorn_shutdown = server.shutdown
    server.shutdown = lambda sockets=None: stop_then_connect()  # type: ignore[method-assign]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server has started")
    server.should_exit = True
    thread.join(HANG_SECONDS)
    assert [until_closed(connection).split(b"\r\n")[0] for connection in held] == [b"HTTP/1.1 200 OK"] * 5
