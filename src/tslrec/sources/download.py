"""Finds a data set's raw file: the path that was given, the cache, or the public address, checked by its sha256."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from filelock import FileLock

from tslrec.config import DataConfig
from tslrec.errors import UserError
from tslrec.sources.raw import require_file

TIMEOUT_SECONDS = 10
BLOCK_BYTES = 1 << 16


def locate(data: DataConfig, cache: Path) -> Path:
    """The raw file of a data set.

    Args:
        data: with `path`, a file of the person's own; without, a public file that is downloaded once.
        cache: downloaded files lie in its folder `data`.

    Raises:
        UserError: if there is no such file, it cannot be downloaded, or it is not the one that is pinned.
    """
    expected = data.download.sha256
    if data.path is not None:
        path = Path(data.path).expanduser()
        require_file(path)
        if expected is not None:
            refuse_other_bytes(
                path, expected, f"give the right file, or set data.download.sha256=null to use it as {data.name}"
            )
        return path
    url = data.download.url
    if url is None:
        raise UserError(f"data={data.name} has no public address; give data.path=FILE")
    path = cache.expanduser() / "data" / f"{data.name}{PurePosixPath(urlsplit(url).path).suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of several runs, or several processes of one, the first downloads.
        with FileLock(path.with_name(path.name + ".lock")):
            if not path.exists():
                download(url, path, expected)
    elif expected is not None:
        refuse_other_bytes(path, expected, "delete it to download it again")
    return path


def download(url: str, path: Path, expected: str | None) -> None:
    """Downloads aside, checks, syncs and renames: a file with the final name is whole and right."""
    from rich.progress import Progress

    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"data.download.url={url}: must begin with https://")
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    state = hashlib.sha256()
    try:
        with (
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
            aside.open("wb") as file,
            Progress(transient=True) as progress,
        ):
            size = response.headers.get("Content-Length")
            task = progress.add_task(f"Downloading {path.name}", total=int(size) if size else None)
            while block := response.read(BLOCK_BYTES):
                file.write(block)
                state.update(block)
                progress.advance(task, len(block))
            file.flush()
            os.fsync(file.fileno())
        if size and aside.stat().st_size != int(size):
            raise UserError(f"{url}: ended after {aside.stat().st_size} of {size} bytes; run it again")
        if expected is not None and state.hexdigest() != expected:
            raise UserError(
                f"{url}: has sha256 {state.hexdigest()}, not the pinned {expected}; download the right file and give "
                "it with data.path=FILE"
            )
        aside.replace(path)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{url}: cannot be downloaded ({reason}); put the file at {path}, or give data.path=FILE"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def refuse_other_bytes(path: Path, expected: str, remedy: str) -> None:
    """Refuses a file whose sha256 is not the expected one."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise UserError(f"{path}: has sha256 {found}, not the pinned {expected}; {remedy}")
