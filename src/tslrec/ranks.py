"""The processes of a job: which of them this is, and what becomes of it when another one ends.

One of them, the first, decides, writes and speaks. The others may be there from the start (torchrun, srun), or
Lightning starts them in the middle of a run, when the first stage that they share begins, by the same command; these
run it from its beginning, find on disk what is finished already, and so arrive where the first process is.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lightning
    import torch
    from torch import Tensor

JOB = "TSLREC_JOB"
PARENT = "TSLREC_PARENT"
"""Environment variables by which processes that Lightning starts know whom they belong to."""

PARENT_POLL_SECONDS = 0.5
FIRST_SPEAKS_SECONDS = 10.0


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process decides, writes and speaks for its job; known before any process group is."""
    if "RANK" in environment:
        return environment["RANK"] == "0"
    if "LOCAL_RANK" in environment or "NODE_RANK" in environment:
        return environment.get("LOCAL_RANK", "0") == environment.get("NODE_RANK", "0") == "0"
    return environment.get("SLURM_PROCID", "0") == "0"


def join_job() -> str:
    """What tells this job from others, the same in all of its processes; those started from here on inherit it."""
    mine = str(os.getpid())
    parent = os.environ.setdefault(PARENT, mine)
    if parent != mine and not is_first():
        threading.Thread(target=end_with_parent, args=(int(parent),), daemon=True).start()
    elif parent != mine or JOB not in os.environ:
        os.environ.update({PARENT: mine, JOB: name_of_job(os.environ)})
    return os.environ[JOB]


def name_of_job(environment: Mapping[str, str]) -> str:
    """From what a launcher tells all of its processes; drawn where there is none."""
    if "LOCAL_RANK" not in environment and int(environment.get("SLURM_NTASKS", "1")) > 1:
        parts = [environment.get(f"SLURM_{name}", "0") for name in ("JOB_ID", "STEP_ID", "RESTART_COUNT")]
    elif "MASTER_PORT" in environment:
        names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
        parts = [environment.get(name, "0") for name in names]
    else:
        parts = [secrets.token_hex(4)]
    return re.sub(r"[^\w.-]", "-", "-".join(parts))


def end_with_parent(parent: int) -> None:
    """Ends this process, whatever it waits for, once the one that started it is gone."""
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_SECONDS)
    os._exit(1)


def fall_silent() -> None:
    """Leaves it to the first process to warn: all meet the same; errors are still told."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def let_first_speak() -> None:
    """Called where a process other than the first fails: mostly all do, and then the first one says why, and ends."""
    time.sleep(FIRST_SPEAKS_SECONDS)


def process_place() -> tuple[int, int]:
    """This process's rank and how many there are, in the training that runs now."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def start_others(trainer: lightning.Trainer) -> None:
    """Has Lightning start the other processes of the job, where that is for it to do and not done; else a fit does."""
    if trainer.strategy.launcher is not None:
        trainer.strategy.launcher.launch(lambda: None, trainer=trainer)


def leave() -> None:
    """Takes leave of the other processes, where all of them have come to their end together.

    Left to the interpreter's end, gloo's threads now and then abort a process that had done all it should
    (pytorch/pytorch#190489). Not for a process that fails by itself: others may still wait for it, and it for them.
    """
    if "torch.distributed" not in sys.modules:
        return
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def number_of_processes(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes the job has, as far as its launcher or a training has told by now."""
    return max(process_place()[1], int(environment.get("WORLD_SIZE", "1")))


def in_any_process(happened: Tensor) -> bool:
    """Whether something happened in any of the processes, which then all know: none is left waiting for another.

    Args:
        happened: a single bool, on the device that this process computes on.
    """
    return any_in_any_process([happened], happened.device)[0]


def any_in_any_process(happened: Sequence[bool | Tensor], device: torch.device) -> list[bool]:
    """The same of several things at once.

    Args:
        happened: single bools.
        device: that this process computes on.
    """
    if process_place()[1] == 1:
        return [bool(each) for each in happened]
    import torch

    together = torch.tensor([int(each) for each in happened], device=device)
    torch.distributed.all_reduce(together, torch.distributed.ReduceOp.MAX)
    return [bool(each) for each in together]


def sum_over_processes(mine: Tensor, device: torch.device) -> Tensor:
    """The sum of a tensor over all processes, which all get, on the CPU.

    Args:
        mine: this process's.
        device: that this process computes on.
    """
    if process_place()[1] == 1:
        return mine.cpu().clone()
    import torch

    together = mine.to(device, copy=True)
    torch.distributed.all_reduce(together)
    return together.cpu()
