"""Signal handlers of a program that runs within the process of the tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tslrec.system.interruptions import SIGNALS


@contextmanager
def handlers_put_back() -> Iterator[None]:
    """Puts back, at its end, the handlers that a program installs and leaves as they are until its process ends."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
