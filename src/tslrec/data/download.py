"""Finds a data set's raw file: at the given path, in the cache, or at its public URL, and checks its sha256."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, urlsplit

from filelock import FileLock

from tslrec.data.formats.base import require_file
from tslrec.data.formats.parts import files_of
from tslrec.data.formats.wording import brief
from tslrec.settings.data import DataConfig
from tslrec.system.errors import UserError
from tslrec.system.hashing import digest_files, file_sha256

TIMEOUT_SECONDS = 10
"""How long the download waits for an answer of the server."""
BLOCK_BYTES = 1 << 16
"""Bytes that are read from the server at a time."""


def locate(data: DataConfig, cache: Path) -> Path:
    """The path of a data set's raw file, which is downloaded if necessary.

    Args:
        data: with `path`, the user's own file; without it, a public file that is downloaded once.
        cache: downloaded files are kept in its subfolder `data`.

    Raises:
        UserError: if the file does not exist, cannot be downloaded, or does not have the pinned sha256.
    """
    expected = data.download.sha256
    if data.path is not None:
        path = Path(data.path).expanduser()
        if not path.is_dir():
            require_file(path)
        if expected is not None:
            check_sha256(
                path, expected, f"give the right file, or set data.download.sha256=null to use it as {data.name}"
            )
        return path
    url = data.download.url
    if url is None:
        raise UserError(f"data={data.name} has no public address; give data.path=FILE")
    path = cache.expanduser() / "data" / f"{data.name}{PurePosixPath(split(url).path).suffix}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several runs, or several processes of one run, may want the file: the first one downloads it.
        with FileLock(path.with_name(path.name + ".lock")):
            if not path.exists():
                download(url, path, expected)
    elif expected is not None:
        check_sha256(path, expected, "delete it to download it again")
    return path


def download(url: str, path: Path, expected: str | None) -> None:
    """Downloads a file under a temporary name, checks it, and renames it, so that `path` is complete and correct.

    Args:
        url: where the file is.
        path: where to put it.
        expected: hex sha256 that it must have; None accepts any.

    Raises:
        UserError: if it cannot be downloaded, is incomplete, or has another sha256.
    """
    from rich.progress import Progress

    if split(url).scheme not in ("http", "https"):
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
            if size and not (size.isascii() and size.isdecimal()):
                raise UserError(
                    f"{url}: the server calls its size '{brief(size)}', which is no number; put the file at {path}, or "
                    "give data.path=FILE"
                )
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
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or f"{type(error).__name__} {error}".strip()
        raise UserError(
            f"{url}: cannot be downloaded ({brief(reason, 80)}); put the file at {path}, or give data.path=FILE"
        ) from error
    finally:
        aside.unlink(missing_ok=True)


def split(url: str) -> SplitResult:
    """The parts of the public file's address.

    Raises:
        UserError: if it is none.
    """
    try:
        return urlsplit(url)
    except ValueError as error:
        raise UserError(
            f"data.download.url={brief(url)}: is no address ({brief(error)}); correct it, or give data.path=FILE"
        ) from error


def raw_sha256(path: Path) -> str:
    """Hex sha256 of a raw file; of a folder, that of its files' names and contents, whatever its own name."""
    if not path.is_dir():
        return file_sha256(path)
    return digest_files(path, [file.relative_to(path).as_posix() for file in files_of(path)])


def check_sha256(path: Path, expected: str, remedy: str) -> None:
    """Raises a `UserError` that ends with `remedy` if a file's sha256 is not the expected one."""
    found = raw_sha256(path)
    if found != expected:
        raise UserError(f"{path}: has sha256 {found}, not the pinned {expected}; {remedy}")
