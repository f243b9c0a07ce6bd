"""Records the state of a run of a sweep (a cell), and requeues its SLURM job when the job's time runs out.

Every launcher starts a cell as a process of its own, `python train.py …`, and names the cell's record in the
environment. So a killed run ends no other run, and the other processes of a run know its command line.
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
from types import TracebackType
from typing import Any

from tslrec.pipeline.sweeps.record import CellState, lock_of
from tslrec.system import interruptions
from tslrec.system.errors import StoppedError, UserError
from tslrec.system.exits import one_line
from tslrec.system.files import write_json

CELL = "TSLREC_CELL"
"""Environment variable: path of the record of the cell that this process runs."""
SWEEPER = "TSLREC_SWEEPER"
"""Environment variable: id of the process that started a local sweep. When that process is gone, its runs end."""
REQUEUES = "TSLREC_REQUEUES"
"""Environment variable: how often a SLURM job may requeue itself."""

POLL_SECONDS = 0.5
"""Seconds between two checks whether the sweep's process still exists."""


class CellRecorder(AbstractContextManager["CellRecorder"]):
    """While active, records the state of the cell that this process runs.

    It records nothing outside of a sweep, and on other ranks than rank 0.

    Args:
        first: whether this process is rank 0 of its job.
        environment: environment variables, which name the cell's record and the SLURM job.

    Attributes:
        result: the folder of the run's recorded result; the caller sets it.
        fingerprint: of the run's configuration; the caller sets it.
    """

    def __init__(self, first: bool, environment: Mapping[str, str] = os.environ) -> None:
        self.environment = environment
        self.record = Path(environment[CELL]) if CELL in environment and first else None
        self.lock = None if self.record is None else lock_of(self.record)
        self.result: Path | None = None
        self.fingerprint: str | None = None
        self.received: int | None = None
        if CELL in environment and not first:
            # SLURM signals every process. Rank 0 reacts, and its end ends the others.
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def __enter__(self) -> CellRecorder:
        if self.record is None or self.lock is None:
            return self
        self.record.parent.mkdir(parents=True, exist_ok=True)
        if SWEEPER in self.environment:
            sweeper = int(self.environment[SWEEPER])
            threading.Thread(target=terminate_after, args=(sweeper,), daemon=True).start()
        self.lock.acquire()
        self.write(CellState.RUNNING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.record is None or self.lock is None:
            return
        # The run is ending. SLURM signals a job once more when it is asked to requeue it.
        for number in interruptions.SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if isinstance(error, StoppedError | interruptions.Interruption):
            self.received = error.signal
        if error is None:
            self.write(CellState.DONE)
        elif self.received is not None:
            requeued = self.received == signal.SIGUSR1 and self.requeue()
            name = interruptions.name_of(self.received)
            self.write(CellState.STOPPED, f"by {name}" + (", queued again" if requeued else ""))
        elif isinstance(error, Exception):
            reason = one_line(error) if isinstance(error, UserError) else " ".join(repr(error).split())
            self.write(CellState.FAILED, reason)
        else:
            self.write(CellState.STOPPED, f"by {type(error).__name__}")
        self.lock.release()

    def write(self, state: CellState, note: str = "") -> None:
        """Writes the record.

        Args:
            state: of the run.
            note: what a person should know beside the state.

        Raises:
            UserError: if it cannot be written.
        """
        assert self.record is not None
        job = slurm_job_name(self.environment)
        if job is not None:
            note = f"{note} (job {job})".strip()
        result = None if self.result is None else os.path.relpath(self.result, self.record.parent)
        content: dict[str, Any] = {"state": state, "note": note, "result": result, "fingerprint": self.fingerprint}
        content.update(host=socket.gethostname(), process=os.getpid())
        try:
            write_json(self.record, content)
        except OSError as error:
            where = error.filename or self.record
            raise UserError(
                f"{where}: {error.strerror or error}; cannot write the run's record: free space or fix permissions"
            ) from error

    def requeue(self) -> bool:
        """Asks SLURM to run this job again later, when it resumes from its last checkpoint; whether SLURM will."""
        job = slurm_job_name(self.environment)
        times, allowed = (int(self.environment.get(name, "0")) for name in ("SLURM_RESTART_COUNT", REQUEUES))
        if job is None or times >= allowed:
            return False
        asked = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        if asked.returncode != 0:
            print(f"scontrol requeue {job}: {asked.stderr.strip()}", flush=True)
        return asked.returncode == 0


def slurm_job_name(environment: Mapping[str, str]) -> str | None:
    """This process's SLURM job as `squeue` names it; None outside of SLURM."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID")


def terminate_after(sweeper: int) -> None:
    """Waits until a process is gone, then sends SIGTERM to this one, which ends it in good order."""
    while is_alive(sweeper):
        time.sleep(POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def is_alive(process: int) -> bool:
    """Whether a process of this id exists."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
