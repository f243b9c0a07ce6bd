"""`launcher=slurm`: a SLURM job per run of a sweep, in one array; its wait needs `squeue` alone, no accounting."""

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

from tslrec.errors import UserError
from tslrec.sweep import Cell, CellState, Sweep
from tslrec.trial import CELL, REQUEUES, SWEEPER

POLL_SECONDS = 2.0
LONGEST_POLL_SECONDS = 30.0
LONGEST_SILENCE_SECONDS = 3600.0
"""After which a SLURM that cannot be asked is given up; a restart of its controller takes minutes."""
NAMES = {
    "cpus_per_task": "cpus_per_task",
    "gpus_per_node": "gpus_per_node",
    "mem_gb": "mem",
    "name": "job_name",
    "nodes": "nodes",
    "tasks_per_node": "ntasks_per_node",
    "timeout_min": "time",
}
"""What Hydra's settings are called by submitit; the others have one name."""
OWN = ("submitit_folder", "max_num_timeout")
"""Settings that are not submitit's."""
BY_WHICH_GPUS_ARE_ASKED_FOR = ("gpus_per_node", "gpus_per_task", "gres", "mem_per_gpu")
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
"""States of a job that does not come back; in any other it is queued, or at work."""


class TrialSlurmLauncher(submitit_launcher.SlurmLauncher):
    """Hydra's launcher for submitit, which waits for all jobs and judges each by what its run recorded.

    The original gives up at the first job that left no result, such as a cancelled one, and waits for accounting to
    say so. Here a job runs the command line of its cell, so signals reach the training, and none is pickled.
    """

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submits, and waits until no job is left in the queue.

        Raises:
            UserError: if SLURM refuses the jobs, or cannot be asked for an hour.
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
            jobs = executor.map_array(become_cell, [str(sweep.folder)] * len(numbers), numbers)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"launcher=slurm: {error}") from error
        array = jobs[0].job_id.split("_")[0]
        print(f"SLURM job {array}: {len(jobs)} runs; what they print is in {folder.parent}", flush=True)
        try:
            wait_for(Queue(array, sweep.folder), Progress(sweep).tell)
        except KeyboardInterrupt:
            raise UserError(
                f"no longer waiting; SLURM job {array} goes on: `tslrec report {sweep.folder}` says how far it is, "
                f"`scancel {array}` ends it"
            ) from None
        return []


def sbatch_settings(params: Mapping[str, Any], accelerator: str) -> dict[str, Any]:
    """Submitit's settings: those of the launcher, and the GPUs that the trainer wants where no setting speaks of any.

    Raises:
        UserError: where the number of processes is not a number.
    """
    given = {NAMES.get(name, name): value for name, value in params.items() if name not in OWN and value is not None}
    tasks = given.get("ntasks_per_node", 1)
    if tasks < 1:
        raise UserError(f"launcher=slurm: trainer.devices={tasks} names no number of processes; set it to one a GPU")
    if accelerator != "cpu" and not any(name in given for name in BY_WHICH_GPUS_ARE_ASKED_FOR):
        given["gpus_per_node"] = tasks
    if "mem" in given:
        given["mem"] = f"{given['mem']}GB"
    return given


def become_cell(folder: str, number: int) -> NoReturn:
    """What a job runs: it turns into the command line of its cell, which signals then reach as they do anywhere."""
    sweep = Sweep.read(Path(folder))
    environment = {**os.environ, CELL: str(sweep.record(number))}
    # A job outlives the process that submitted it, which is on another machine.
    environment.pop(SWEEPER, None)
    os.execve(sys.executable, [sys.executable, str(sweep.program), *sweep.cells[number]], environment)


def wait_for(queue: Queue, tell: Callable[[], None]) -> None:
    """Waits until the queue has no job of an array that is still to run, or runs."""
    pause = POLL_SECONDS
    while not queue.is_over():
        tell()
        time.sleep(pause)
        pause = min(pause * 1.1, LONGEST_POLL_SECONDS)
    tell()


class Queue:
    """What SLURM's queue says of an array; it forgets its jobs some minutes after they finished.

    Args:
        array: number of the array's job.
        sweep_folder: for the message of one that gives up.
    """

    def __init__(self, array: str, sweep_folder: Path) -> None:
        self.array = array
        self.sweep_folder = sweep_folder
        self.silent_since: float | None = None

    def is_over(self) -> bool:
        """Whether all its jobs are finished; not as long as SLURM cannot be asked.

        Raises:
            UserError: if that takes longer than a restart does.
        """
        command = ["squeue", "--noheader", "--array", "--states=all", "--format=%T", f"--jobs={self.array}"]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode != 0 and "Invalid job id" not in asked.stderr:
            said = asked.stderr.strip().splitlines()
            self.bear(said[-1] if said else f"squeue: exit code {asked.returncode}")
            return False
        if self.silent_since is not None:
            print("SLURM answers again", flush=True)
            self.silent_since = None
        return asked.returncode != 0 or all(state in FINISHED for state in asked.stdout.split())

    def bear(self, complaint: str) -> None:
        """Says once that SLURM cannot be asked, and gives up in the end."""
        now = time.monotonic()
        if self.silent_since is None:
            self.silent_since = now
            print(f"SLURM does not answer ({complaint}); still asking", flush=True)
        elif now - self.silent_since > LONGEST_SILENCE_SECONDS:
            raise UserError(
                f"launcher=slurm: no answer for {LONGEST_SILENCE_SECONDS / 60:.0f} minutes ({complaint}); job "
                f"{self.array} may go on: `tslrec report {self.sweep_folder}` says how far it is, and the same command "
                "goes on with what is open"
            )


class Progress:
    """Says a line for each run that is over."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.told: set[tuple[int, CellState]] = set()

    def tell(self) -> None:
        """What is new since it was last called."""
        from tslrec.sweep_view import progress

        cells = self.sweep.status()
        for cell in cells:
            if is_told(cell) and (cell.number, cell.state) not in self.told:
                self.told.add((cell.number, cell.state))
                print(progress(cells, cell), flush=True)


def is_told(cell: Cell) -> bool:
    return cell.state in (CellState.DONE, CellState.FAILED, CellState.STOPPED)
