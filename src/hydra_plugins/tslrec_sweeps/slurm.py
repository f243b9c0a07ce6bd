"""`launcher=slurm`: submits the runs of a sweep as one SLURM job array and waits for them.

Waiting needs only `squeue`, no accounting database.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import JobReturn
from hydra_plugins.hydra_submitit_launcher import submitit_launcher

from tslrec.pipeline.sweeps.cell import CELL, REQUEUES, SWEEPER
from tslrec.pipeline.sweeps.record import Cell, CellState, Sweep
from tslrec.system.errors import UserError
from tslrec.system.interruptions import Interruption

POLL_SECONDS = 2.0
"""First pause between two calls of `squeue`; pauses grow by a tenth each time."""

LONGEST_POLL_SECONDS = 30.0
"""Longest pause between two calls of `squeue`."""

LONGEST_SILENCE_SECONDS = 3600.0
"""Waiting ends with an error after `squeue` failed for this long; a restart of SLURM's controller takes minutes."""

NAMES = {
    "cpus_per_task": "cpus_per_task",
    "gpus_per_node": "gpus_per_node",
    "mem_gb": "mem",
    "name": "job_name",
    "nodes": "nodes",
    "tasks_per_node": "ntasks_per_node",
    "timeout_min": "time",
}
"""Submitit's names of the launcher's settings, where they differ from Hydra's."""

OWN = ("submitit_folder", "max_num_timeout")
"""Settings of the launcher that are not passed to submitit."""

GPU_SETTINGS = ("gpus_per_node", "gpus_per_task", "gres", "mem_per_gpu")
"""Settings that request GPUs."""

FINISHED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
"""Final states of a job; in any other state it is queued or running."""


class CellSlurmLauncher(submitit_launcher.SlurmLauncher):
    """Hydra's submitit launcher, changed to wait for all jobs and to judge each by what its run recorded.

    The original gives up at the first job without a result, such as a cancelled one, and needs accounting to notice it.
    Here a job executes the command line of its cell: signals reach the training process, and nothing is pickled.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submits the jobs, and waits until all are finished.

        Args:
            job_overrides: the command line of each run.
            initial_job_idx: unused; the record of the sweep numbers the runs.

        Raises:
            UserError: if SLURM refuses the jobs, `squeue` fails for an hour, or the user interrupts the wait.
        """
        assert self.config is not None
        import submitit

        sweep = Sweep.read(Path(self.config.hydra.sweep.dir))
        folder = Path(self.params["submitit_folder"])
        settings = sbatch_settings(self.params, str(self.config.trainer.accelerator))
        os.environ[REQUEUES] = str(self.params["max_num_timeout"])
        try:
            executor = submitit.SlurmExecutor(folder)
            executor.update_parameters(**settings)
            numbers = [sweep.number_of(words) for words in job_overrides]
            jobs = executor.map_array(exec_cell, [str(sweep.folder)] * len(numbers), numbers)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"launcher=slurm: {error}") from error
        array = jobs[0].job_id.split("_")[0]
        print(f"SLURM job {array}: {len(jobs)} runs; their output is in {folder.parent}", flush=True)
        try:
            wait_for(Queue(array, sweep.folder), Progress(sweep).tell)
        except (Interruption, KeyboardInterrupt):
            raise UserError(
                f"no longer waiting; SLURM job {array} keeps running: `tslrec report {sweep.folder}` shows its "
                f"progress, `scancel {array}` ends it"
            ) from None
        return []


def sbatch_settings(params: Mapping[str, Any], accelerator: str) -> dict[str, Any]:
    """The settings for submitit: those of the launcher, plus one GPU per process if the trainer needs GPUs.

    Args:
        params: the launcher's settings; if any of them requests GPUs, no further GPUs are requested.
        accelerator: `cpu` or `gpu`.

    Raises:
        UserError: if the number of processes per node is below 1.
    """
    given = {NAMES.get(name, name): value for name, value in params.items() if name not in OWN and value is not None}
    tasks = given.get("ntasks_per_node", 1)
    if tasks < 1:
        raise UserError(
            f"launcher=slurm: trainer.devices={tasks} names no number of processes; set it to the GPUs per node"
        )
    if accelerator != "cpu" and not any(name in given for name in GPU_SETTINGS):
        given["gpus_per_node"] = tasks
    if "mem" in given:
        given["mem"] = f"{given['mem']}GB"
    return given


def exec_cell(folder: str, number: int) -> NoReturn:
    """The function that a job runs: it replaces itself by the command line of its cell, which then gets the signals."""
    sweep = Sweep.read(Path(folder))
    environment = {**os.environ, CELL: str(sweep.record(number))}
    # The job outlives the submitting process, which runs on another machine and must not be watched.
    environment.pop(SWEEPER, None)
    os.execve(sys.executable, sweep.command(number), environment)


def wait_for(queue: Queue, tell: Callable[[], None]) -> None:
    """Waits until all jobs of an array are finished.

    Args:
        queue: the array's queue.
        tell: called after each poll; prints the progress.
    """
    pause = POLL_SECONDS
    while not queue.is_over():
        tell()
        time.sleep(pause)
        pause = min(pause * 1.1, LONGEST_POLL_SECONDS)
    tell()


class Queue:
    """Asks `squeue` about a job array; SLURM forgets jobs some minutes after they finished.

    Args:
        array: the job number of the array.
        sweep_folder: the sweep's folder, for the error message.
    """

    def __init__(self, array: str, sweep_folder: Path) -> None:
        self.array = array
        self.sweep_folder = sweep_folder
        self.silent_since: float | None = None

    def is_over(self) -> bool:
        """Whether all jobs are finished; False while `squeue` fails.

        Raises:
            UserError: if `squeue` has failed for longer than `LONGEST_SILENCE_SECONDS`.
        """
        command = ["squeue", "--noheader", "--array", "--states=all", "--format=%T", f"--jobs={self.array}"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode != 0 and "Invalid job id" not in asked.stderr:
            said = asked.stderr.strip().splitlines()
            self.note_silence(said[-1] if said else f"squeue: exit code {asked.returncode}")
            return False
        if self.silent_since is not None:
            print("SLURM answers again", flush=True)
            self.silent_since = None
        return asked.returncode != 0 or all(state in FINISHED for state in asked.stdout.split())

    def note_silence(self, complaint: str) -> None:
        """Prints once that `squeue` fails, and raises `UserError` after `LONGEST_SILENCE_SECONDS`."""
        now = time.monotonic()
        if self.silent_since is None:
            self.silent_since = now
            print(f"SLURM does not answer ({complaint}); still asking", flush=True)
        elif now - self.silent_since > LONGEST_SILENCE_SECONDS:
            raise UserError(
                f"launcher=slurm: no answer for {LONGEST_SILENCE_SECONDS / 60:.0f} minutes ({complaint}); job "
                f"{self.array} may go on: `tslrec report {self.sweep_folder}` shows its progress, and the "
                "same command resumes the unfinished runs"
            )


class Progress:
    """Prints a line for each run that has ended.

    Args:
        sweep: the record of the sweep.
    """

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.printed: set[tuple[int, CellState]] = set()

    def tell(self) -> None:
        """Prints the runs that ended since the last call."""
        from tslrec.reports.sweep_view import progress

        cells = self.sweep.status()
        for cell in cells:
            if has_ended(cell) and (cell.number, cell.state) not in self.printed:
                self.printed.add((cell.number, cell.state))
                print(progress(cells, cell), flush=True)


def has_ended(cell: Cell) -> bool:
    """Whether a run is done, failed or was stopped."""
    return cell.state in (CellState.DONE, CellState.FAILED, CellState.STOPPED)
