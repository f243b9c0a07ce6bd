"""A run that is a cell of a sweep: it records what becomes of it, and queues itself again where SLURM takes it away.

Whichever launcher starts it, it is a process of its own that ran `python train.py …`; the environment says which cell
it is. So a run that is killed takes no other with it, and one of several processes finds its own command line.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from tslrec.entry import EXIT_SIGNAL, one_line
from tslrec.errors import StoppedError, UserError
from tslrec.files import write_json
from tslrec.sweep import CellState, lock_of

CELL = "TSLREC_CELL"
"""Environment variable: the record of the cell that a process runs."""
SWEEPER = "TSLREC_SWEEPER"
"""Environment variable: the process that waits for the runs of a local sweep; without it they end in good order."""
REQUEUES = "TSLREC_REQUEUES"
"""Environment variable: how often a SLURM job may queue itself again."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
POLL_SECONDS = 0.5


class Trial(AbstractContextManager["Trial"]):
    """What this process records; nothing where it is no cell of a sweep, or not its job's first process.

    Attributes:
        result: the folder of what the run reached, to be set within.
        fingerprint: of how it is run, to be set within.
    """

    def __init__(self, first: bool, environment: Mapping[str, str] = os.environ) -> None:
        self.environment = environment
        self.record = Path(environment[CELL]) if CELL in environment and first else None
        self.lock = None if self.record is None else lock_of(self.record)
        self.result: Path | None = None
        self.fingerprint: str | None = None
        self.received: int | None = None
        if CELL in environment and not first:
            # The first process is told as well, and what it does then ends the others.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def __enter__(self) -> Trial:
        if self.record is None or self.lock is None:
            return self
        self.record.parent.mkdir(parents=True, exist_ok=True)
        for number in SIGNALS:
            signal.signal(number, self.receive)
        if SWEEPER in self.environment:
            threading.Thread(target=end_with, args=(int(self.environment[SWEEPER]),), daemon=True).start()
        self.lock.acquire()
        self.write(CellState.RUNNING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.record is None or self.lock is None:
            return
        # From here on it ends anyway; SLURM, asked to queue the job again, says so once more.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if isinstance(error, StoppedError):
            self.received = error.signal
        if error is None:
            self.write(CellState.DONE)
        elif self.received is not None:
            again = self.received == signal.SIGUSR1 and self.queue_again()
            name = signal.Signals(self.received).name
            self.write(CellState.STOPPED, f"by {name}" + (", queued again" if again else ""))
        elif isinstance(error, Exception):
            said = one_line(error) if isinstance(error, UserError) else " ".join(repr(error).split())
            self.write(CellState.FAILED, said)
        else:
            self.write(CellState.STOPPED, f"by {type(error).__name__}")
        self.lock.release()

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Outside of a training, which takes signals itself, there is nothing to write first.

        Raises:
            SystemExit: always.
        """
        self.received = number
        raise SystemExit(EXIT_SIGNAL + number)

    def write(self, state: CellState, note: str = "") -> None:
        assert self.record is not None
        job = name_of_slurm_job(self.environment)
        if job is not None:
            note = f"{note} (job {job})".strip()
        result = None if self.result is None else os.path.relpath(self.result, self.record.parent)
        content: dict[str, Any] = {"state": state, "note": note, "result": result, "fingerprint": self.fingerprint}
        content.update(host=socket.gethostname(), process=os.getpid())
        try:
            write_json(self.record, content)
        except OSError as error:
            where = error.filename or self.record
            raise UserError(f"{where}: {error.strerror or error}; the run goes nowhere without its record") from error

    def queue_again(self) -> bool:
        """Asks SLURM to start this job again later, from its last checkpoint; whether it will."""
        job = name_of_slurm_job(self.environment)
        times, allowed = (int(self.environment.get(name, "0")) for name in ("SLURM_RESTART_COUNT", REQUEUES))
        if job is None or times >= allowed:
            return False
        asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        if asked.returncode != 0:
            print(f"scontrol requeue {job}: {asked.stderr.strip()}", flush=True)
        return asked.returncode == 0


def name_of_slurm_job(environment: Mapping[str, str]) -> str | None:
    """As `squeue` calls it."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def end_with(sweeper: int) -> None:
    """Asks this process to end, in good order, once the one that started the sweep is gone."""
    while is_alive(sweeper):
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def is_alive(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
