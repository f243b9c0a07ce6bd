"""Stops the runs of a local sweep on a signal: each run gets it once.

A terminal sends Ctrl-C to every process of its group, a scheduler signals one process or all. So each run is started in
a session of its own, which no terminal signals, and the sweep's process alone decides: it writes `stop-<pid>.json`
beside the sweep's record. Whoever waits for a run reads that file, and passes the signal on as often as it says: once,
and once more after a second Ctrl-C, which ends the run at once.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from tslrec.pipeline.sweeps.record import Cell, CellState, Sweep
from tslrec.system import interruptions
from tslrec.system.errors import StoppedError
from tslrec.system.files import write_json

POLL_SECONDS = 0.2
"""Seconds between two looks for the file."""

NAMED = 2
"""Stopped runs that the last line names; `tslrec report` shows the others."""

LONGEST_TITLE = 60
"""Characters of a run's title in that line."""


@dataclass(frozen=True)
class Stop:
    """What the sweep's process was asked.

    Attributes:
        signal: the signal's number.
        times: how often it is to be passed on.
    """

    signal: int
    times: int


class SweepStop:
    """The request to stop a sweep, which all processes that wait for its runs see.

    Args:
        folder: of the sweep.
        sweeper: the id of the sweep's process.
    """

    def __init__(self, folder: Path, sweeper: int) -> None:
        self.path = folder / f"stop-{sweeper}.json"
        self.request = interruptions.StopRequest()

    def read(self) -> Stop | None:
        """What was asked; None: nothing."""
        try:
            return Stop(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Signal handler of the sweep's process: asks for a stop, and a second time after a second Ctrl-C."""
        interruptions.release_closed_terminal(number)
        if self.request.begin(number):
            interruptions.PROGRAM.begin(number)
            write_json(self.path, {"signal": number, "times": 1})
        elif number == signal.SIGINT and self.request.is_repeated():
            write_json(self.path, {"signal": number, "times": 2})

    @contextmanager
    def handlers(self) -> Iterator[None]:
        """While active, signals to the sweep's process stop its runs."""
        self.path.unlink(missing_ok=True)
        interruptions.install(self.note)
        try:
            yield
        finally:
            interruptions.install()
            self.path.unlink(missing_ok=True)


def ignore_signals() -> None:
    """Makes a process that only waits for runs go on waiting; the programs that it starts do not inherit it."""
    if threading.current_thread() is threading.main_thread():
        for number in interruptions.SIGNALS:
            signal.signal(number, nothing)


def nothing(number: int, frame: FrameType | None) -> None:
    """A signal handler that does nothing; unlike `SIG_IGN`, no other program inherits it."""


def run_until_stopped(
    command: Sequence[str], environment: Mapping[str, str], output: int | None, stop: SweepStop
) -> int:
    """Runs a command to its end, or passes on the request to stop; returns its exit code.

    Args:
        command: the command line.
        environment: the environment variables.
        output: file descriptor for its output; None: that of this process.
        stop: where the request is looked for.
    """
    passed_on = 0
    with subprocess.Popen(
        command, env=dict(environment), stdout=output, stderr=output, start_new_session=True
    ) as process:
        while True:
            try:
                return process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                asked = stop.read()
            if asked is not None and asked.times > passed_on:
                process.send_signal(asked.signal)
                passed_on = asked.times


def stopped(sweep: Sweep, number: int) -> StoppedError:
    """The line about a sweep that was stopped: in which runs, and how to go on.

    Args:
        sweep: the sweep.
        number: the signal's number.
    """
    cells = sweep.status()
    names = [shortened(cell) for cell in cells if cell.state is CellState.STOPPED]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    where = f" in {', '.join(names[:NAMED])}{more}" if names else ""
    done = sum(cell.is_done for cell in cells)
    return StoppedError(
        f"sweep: stopped by {interruptions.name_of(number)}{where}; {done} of {len(cells)} runs are done, the same "
        "command goes on with the others",
        number,
    )


def shortened(cell: Cell) -> str:
    """A run's title, cut to `LONGEST_TITLE`."""
    return cell.title if len(cell.title) <= LONGEST_TITLE else cell.title[: LONGEST_TITLE - 1] + "…"
