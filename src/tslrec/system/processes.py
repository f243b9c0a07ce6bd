"""The processes of a job: this process's rank, the job's name, and collective operations among them.

Rank 0 decides, writes results and prints. The other ranks exist from the start (torchrun, srun), or Lightning starts
them in the middle of a run, when the first stage that all ranks share begins. Lightning starts them with the same
command line, so they run the program from its beginning, find the finished stages on disk, and reach the point where
rank 0 is.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import secrets
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import lightning
    import torch
    from torch import Tensor

JOB = "TSLREC_JOB"
"""Environment variable with the job's name; processes that Lightning starts inherit it."""
PARENT = "TSLREC_PARENT"
"""Environment variable with the process id of the process that started the others."""

PARENT_POLL_SECONDS = 0.5
"""Time between two checks of a started process that its parent still runs."""
RANK_ZERO_SECONDS = 10.0
"""How long a failing rank waits for rank 0 to print the reason."""


def is_rank_zero(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is rank 0 of its job, by the launcher's environment variables; needs no process group."""
    if "RANK" in environment:
        return environment["RANK"] == "0"
    if "LOCAL_RANK" in environment or "NODE_RANK" in environment:
        return environment.get("LOCAL_RANK", "0") == environment.get("NODE_RANK", "0") == "0"
    return environment.get("SLURM_PROCID", "0") == "0"


def join_job() -> str:
    """The job's name: the same in all of its processes, different from every other job's.

    Processes that this one starts inherit it. A process that Lightning started also begins to watch its parent here,
    and ends when the parent ends.
    """
    mine = str(os.getpid())
    parent = os.environ.setdefault(PARENT, mine)
    if parent != mine and not is_rank_zero():
        threading.Thread(target=end_with_parent, args=(int(parent),), daemon=True).start()
    elif parent != mine or JOB not in os.environ:
        os.environ.update({PARENT: mine, JOB: job_name(os.environ)})
    return os.environ[JOB]


def job_name(environment: Mapping[str, str]) -> str:
    """A job name made of the variables that the launcher (SLURM or torchrun) sets alike for all ranks; else random."""
    if "LOCAL_RANK" not in environment and int(environment.get("SLURM_NTASKS", "1")) > 1:
        parts = [environment.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT")]
    elif "MASTER_PORT" in environment:
        names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
        parts = [environment.get(name, "0") for name in names]
    else:
        parts = [secrets.token_hex(4)]
    return re.sub(r"[^\w.-]", "-", "-".join(parts))


def end_with_parent(parent: int) -> None:
    """Waits for the parent process to end and then ends this process at once, whatever it is doing.

    Args:
        parent: the parent's process id.
    """
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(1)


def mute_rank() -> None:
    """Silences warnings and log messages up to WARNING on this rank; rank 0 prints the same ones. Errors still show."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def wait_for_rank_zero() -> None:
    """Called on another rank that fails: usually every rank fails alike, so wait until rank 0 printed the reason."""
    time.sleep(RANK_ZERO_SECONDS)


def rank_and_world_size() -> tuple[int, int]:
    """This process's rank and the number of processes in torch's process group; `(0, 1)` without one."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def start_other_processes(trainer: lightning.Trainer) -> None:
    """Makes Lightning start the other processes of the job now, where it is the launcher and has not started them yet.

    Without this call, they start with the first `fit`.
    """
    if trainer.strategy.launcher is not None:
        trainer.strategy.launcher.launch(lambda: None, trainer=trainer)


def destroy_group() -> bool:
    """Destroys torch's process group. Call it only when all processes end together.

    Do not call it in a process that fails alone: it could wait for the others for ever.

    Returns:
        Whether there was one; if so, end the process by `leave`.
    """
    if "torch.distributed" not in sys.modules:
        return False
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return False
    torch.distributed.destroy_process_group()
    return True


def leave(code: int) -> NoReturn:
    """Ends this process after its exit handlers, without tearing the interpreter down.

    DeepSpeed keeps references to process groups, so gloo's threads outlive `destroy_group`. One of them that releases a
    tensor while the interpreter is torn down aborts a process that had finished (pytorch/pytorch#190489).

    Args:
        code: the exit code.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


def number_of_processes(environment: Mapping[str, str] = os.environ) -> int:
    """Number of processes of the job, as far as it is known: from the process group or the launcher's `WORLD_SIZE`."""
    return max(rank_and_world_size()[1], int(environment.get("WORLD_SIZE", "1")))


def in_any_process(happened: Tensor) -> bool:
    """Whether a flag is true in any process. A collective operation: all processes call it and get the same answer.

    Args:
        happened: this process's flag, a bool scalar on the device that it computes on.
    """
    return any_in_any_process([happened], happened.device)[0]


def any_in_any_process(happened: Sequence[bool | Tensor], device: torch.device) -> list[bool]:
    """As `in_any_process`, for several flags in one exchange.

    Args:
        happened: this process's flags, each a bool or a bool scalar.
        device: the device that this process computes on.
    """
    if rank_and_world_size()[1] == 1:
        return [bool(flag) for flag in happened]
    import torch

    flags = torch.tensor([int(flag) for flag in happened], device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return [bool(flag) for flag in flags.tolist()]


def least_of_any_process(mine: Tensor) -> Tensor:
    """The least value of each element over all processes, on the device. A collective operation.

    Args:
        mine: this process's tensor, on the device that it computes on; every process's has the same shape.
    """
    if rank_and_world_size()[1] == 1:
        return mine
    import torch

    least = mine.clone()
    torch.distributed.all_reduce(least, torch.distributed.ReduceOp.MIN)
    return least


def greatest_of_any_process(mine: Tensor, device: torch.device) -> Tensor:
    """The greatest value of each element over all processes, on the CPU. A collective operation.

    Args:
        mine: this process's tensor; every process's has the same shape.
        device: the device that this process computes on.
    """
    if rank_and_world_size()[1] == 1:
        return mine.cpu()
    import torch

    greatest = mine.to(device, copy=True)
    torch.distributed.all_reduce(greatest, torch.distributed.ReduceOp.MAX)
    return greatest.cpu()


def sum_over_processes(mine: Tensor, device: torch.device) -> Tensor:
    """The sum of a tensor over all processes, on the CPU. A collective operation: every process gets the sum.

    Args:
        mine: this process's tensor; every process's has the same shape.
        device: the device that this process computes on.
    """
    if rank_and_world_size()[1] == 1:
        return mine.cpu().clone()
    import torch

    total = mine.to(device, copy=True)
    torch.distributed.all_reduce(total)
    return total.cpu()
