"""A download that fails ends in one line that says what to do, and leaves no file."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tslrec.data.download import locate
from tslrec.settings.data import DataConfig, DownloadConfig
from tslrec.system.errors import UserError


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of a server that gives one answer to every request."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/x.csv"
        finally:
            server.shutdown()
            thread.join()


def refusal(url: str, cache: Path, sha256: str | None = None) -> str:
    """The line in which a download is refused."""
    with pytest.raises(UserError) as refused:
        locate(DataConfig(name="x", download=DownloadConfig(url=url, sha256=sha256)), cache)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    line = str(refused.value)
    assert "\n" not in line
    assert len(line.replace(str(cache), "")) <= 300
    return line


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "cannot be downloaded (Incomplete"),
        (b"SMTP ready\r\n", "cannot be downloaded (BadStatusLine SMTP ready"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc", "calls its size 'many', which is no number"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[::1/x\r\n\r\n", "cannot be downloaded (ValueError Invalid IPv6 URL"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "ended after 3 of 9 bytes; run it again"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "cannot be downloaded (Not Found)"),
    ],
)
def test_a_broken_answer_ends_in_one_line(answer: bytes, message: str, tmp_path: Path) -> None:
    with answering(answer) as url:
        line = refusal(url, tmp_path)
    assert line.startswith(url)
    assert message in line


def test_a_wrong_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc") as url:
        assert "not the pinned 00" in refusal(url, tmp_path, "0" * 64)


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    line = refusal("http://[::1/x.csv", tmp_path)
    assert line.startswith("data.download.url=http://[::1/x.csv: is no address (Invalid IPv6 URL); correct it")
