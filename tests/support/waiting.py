"""Waiting for another process. No test fails because a machine is slow: the only limit is one against hanging."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

HANG_SECONDS = 600.0
"""Seconds after which a program or a thread counts as hanging; far more than anything here takes on a busy machine."""

POLL_SECONDS = 0.01


def wait_until(happened: Callable[[], object], what: str, *programs: subprocess.Popen[Any]) -> None:
    """Returns once `happened()` is true.

    Args:
        happened: asked again and again.
        what: what is waited for, for the message of a failure.
        programs: the programs that make it happen; the test fails with the output of one that ends before.
    """
    deadline = time.monotonic() + HANG_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"not after {HANG_SECONDS:g} s: {what}"
        for program in programs:
            # What happened may be the last thing that the program did.
            assert program.poll() is None or happened(), f"ended before {what}: {program.communicate()}"
        time.sleep(POLL_SECONDS)
