"""Signals that ask a program to end: Ctrl-C, SIGTERM, a closed terminal, a scheduler's warning.

A signal raises `Interruption` wherever the program is, and the program ends with one line (`tslrec.system.exits`). A
training replaces the handlers: it stops between two steps (`tslrec.training.resuming`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Ctrl-C; a request to end; a closed terminal; what a scheduler sends some time before it kills the process."""

EXIT_SIGNAL = 128
"""Added to a signal's number, as shells do, it is the exit code of a run that the signal stopped."""

SAME_REQUEST_SECONDS = 1.0
"""Signals that arrive within this time are one request: launchers pass on what the terminal sent to everybody too."""

SHOW_CURSOR = "\x1b[?25h"
"""What a terminal is sent because a progress bar hides its cursor."""


class Interruption(SystemExit):
    """A signal asked the program to end. As a `SystemExit` it passes `except Exception`, and never has a traceback.

    Args:
        number: the signal's number.

    Attributes:
        signal: that number.
        told: whether a line about it has been printed.
    """

    def __init__(self, number: int) -> None:
        super().__init__(EXIT_SIGNAL + number)
        self.signal = number
        self.told = False


class StopRequest:
    """The first signal that asked for an end; a second Ctrl-C ends the process at once.

    Attributes:
        number: the signal's number; None: there was none.
        at: when it came, by the monotonic clock, in seconds.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.at = 0.0

    def begin(self, number: int) -> bool:
        """Makes a signal the first one, unless there was one; returns whether it is."""
        if self.number is not None:
            return False
        self.number, self.at = number, time.monotonic()
        return True

    def note(self, number: int) -> bool:
        """Notes a signal; returns whether it is the first one. A second Ctrl-C does not return."""
        release_closed_terminal(number)
        if self.begin(number):
            return True
        if number == signal.SIGINT and self.is_repeated():
            end_at_once(number)
        return False

    def is_repeated(self) -> bool:
        """Whether a signal that comes now is another request than the first one."""
        return time.monotonic() - self.at >= SAME_REQUEST_SECONDS


PROGRAM = StopRequest()
"""The request to end this program, outside of a training's loop."""


def install(handler: Callable[[int, FrameType | None], Any] | None = None) -> None:
    """Handles the signals; those that the process was started to ignore (`nohup`, `command &`) stay ignored.

    Args:
        handler: None: `interrupt`.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler or interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Signal handler: ends the program from wherever it is.

    Raises:
        Interruption: at the first signal; later ones must not disturb the end.
    """
    if PROGRAM.note(number):
        raise Interruption(number)


def end_at_once(number: int) -> NoReturn:
    """Ends the process with one line, without any cleaning up; whatever is written, is written under another name."""
    cursor = SHOW_CURSOR if sys.__stdout__ is not None and is_terminal(1) else ""
    line = f"{cursor}ended at once by a second {name_of(number)}; what is finished is kept, the same command goes on\n"
    try:
        os.write(2, line.encode("ascii"))
    finally:
        os._exit(EXIT_SIGNAL + number)


def name_of(number: int) -> str:
    """A signal's name, `SIGINT`."""
    return signal.Signals(number).name


def release_closed_terminal(number: int) -> None:
    """After a closed terminal, sends the output to nowhere: each write to it would fail."""
    if number != signal.SIGHUP:
        return
    for descriptor in (1, 2):
        if was_terminal[descriptor] and not is_terminal(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def is_terminal(descriptor: int) -> bool:
    """Whether a file descriptor is an open terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


was_terminal = {descriptor: is_terminal(descriptor) for descriptor in (1, 2)}
"""Whether standard output and standard error were terminals at the start."""
