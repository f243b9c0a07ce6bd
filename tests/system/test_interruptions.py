"""Signals that ask a program to end: the first is obeyed in good order, a second Ctrl-C at once."""

from __future__ import annotations

import os
import signal

import pytest

from tslrec.system import interruptions
from tslrec.system.exits import run_program
from tslrec.system.interruptions import Interruption, StopRequest


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the module sees, in its only element."""
    now = [100.0]
    monkeypatch.setattr("tslrec.system.interruptions.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `os._exit` an exception."""

    def exit_at_once(code: int) -> None:
        raise RuntimeError(code)

    monkeypatch.setattr(interruptions.os, "_exit", exit_at_once)


@pytest.mark.parametrize("number", interruptions.SIGNALS)
def test_a_signal_ends_a_program_in_one_line(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interruption) as stopped:
        run_program(lambda: run_program(lambda: os.kill(os.getpid(), number)))
    assert stopped.value.code == 128 + number
    (line,) = capfd.readouterr().err.splitlines()
    assert line == f"stopped by {signal.Signals(number).name} before it was done; run the same command again"


def test_signals_at_the_same_time_are_one_request(clock: list[float], ended: None) -> None:
    request = StopRequest()
    assert request.note(signal.SIGINT)
    assert not request.note(signal.SIGINT)
    assert not request.note(signal.SIGTERM)
    assert request.number == signal.SIGINT


def test_a_second_ctrl_c_ends_the_process_at_once_and_no_other_signal_does(
    clock: list[float], ended: None, capfd: pytest.CaptureFixture[str]
) -> None:
    request = StopRequest()
    request.note(signal.SIGTERM)
    clock[0] += 5
    assert not request.note(signal.SIGTERM)
    with pytest.raises(RuntimeError, match=str(128 + signal.SIGINT)):
        request.note(signal.SIGINT)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("ended at once by a second SIGINT; what is finished is kept, the same command goes on")


def test_a_signal_that_a_process_was_started_to_ignore_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run_program(lambda: os.kill(os.getpid(), signal.SIGHUP))
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_a_second_signal_does_not_disturb_the_end(ended: None) -> None:
    cleaned_up = []

    def program() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned_up.append(True)

    with pytest.raises(Interruption) as stopped:
        run_program(program)
    assert stopped.value.signal == signal.SIGINT
    assert cleaned_up
