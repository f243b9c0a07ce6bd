"""Standard output and standard error that never end a program with a traceback.

A sign that the output's encoding lacks is printed as "?". A pipe that its reader has closed (`| head -1`) ends the
program without a word, with the exit code 141 that other Unix programs have. What is closed from the start (`>&-`) goes
nowhere.
"""

from __future__ import annotations

import errno
import io
import os
import pwd
import sys
import tempfile
from pathlib import Path
from typing import Any

from tslrec.system.errors import UserError

EXIT_CLOSED_PIPE = 141
"""Exit code of a program whose output nobody reads any more: 128 + SIGPIPE."""

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of a closed pipe, of a closed terminal and of a closed file descriptor."""


class Output(io.FileIO):
    """Standard output or standard error: where nobody reads any more, a closed pipe ends the program."""

    def write(self, data: Any, /) -> int:
        """Writes bytes.

        Raises:
            SystemExit: with `EXIT_CLOSED_PIPE`, if the reader has closed the pipe.
            UserError: if the disk that holds the output is full, or fails. After either, further writes go nowhere.
        """
        try:
            return super().write(data)
        except OSError as error:
            send_nowhere(self.fileno())
            if error.errno not in GONE:
                what = "standard output" if self.fileno() == 1 else "standard error"
                raise UserError(f"{what}: {error.strerror}; free space, or send it to another place") from None
            if error.errno == errno.EPIPE:
                raise SystemExit(EXIT_CLOSED_PIPE) from None
            return len(data)


def install() -> None:
    """Replaces `sys.stdout` and `sys.stderr`, unless something else has (a notebook, a test)."""
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, f"__{name}__") is None and not is_open(descriptor):
            # Otherwise the next file that is opened would be taken for the output.
            send_nowhere(descriptor)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream, original = getattr(sys, name), getattr(sys, f"__{name}__")
        if stream is not original or (stream is not None and not isinstance(stream, io.TextIOWrapper)):
            continue
        encoding = "utf-8" if stream is None else stream.encoding
        if stream is not None:
            if isinstance(getattr(stream.buffer, "raw", None), Output):
                continue
            stream.flush()
        # Another object for the same descriptor: the original closes nothing that is still in use.
        raw = Output(descriptor, "w", closefd=False)
        buffer = io.BufferedWriter(raw)
        by_line = descriptor == 2 or raw.isatty()
        setattr(sys, name, io.TextIOWrapper(buffer, encoding=encoding, errors="replace", line_buffering=by_line))


def send_nowhere(descriptor: int) -> None:
    """Makes a file descriptor one of the null device."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def is_open(descriptor: int) -> bool:
    """Whether a file descriptor is open."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def set_home() -> str | None:
    """Gives a process without HOME the home of its user, and one whose user has none a folder for temporary files.

    Returns:
        A line about that folder; None if a home was found.
    """
    if os.environ.get("HOME"):
        return None
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = ""
    if home and Path(home).is_dir():
        os.environ["HOME"] = home
        return None
    os.environ["HOME"] = str(Path(tempfile.gettempdir()) / f"tslrec-{os.getuid()}")
    return f"no HOME: downloads are kept in {os.environ['HOME']}; set TSLREC_CACHE=FOLDER or cache=FOLDER"
