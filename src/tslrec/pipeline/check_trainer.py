"""Whether Lightning accepts the values of the trainer section, and this machine has what they ask for."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping

from tslrec.pipeline.check_values import nearest
from tslrec.settings.trainer import TrainerConfig
from tslrec.system.errors import UserError
from tslrec.system.optional_packages import installed
from tslrec.system.shown_values import shown
from tslrec.system.targets import check_target

LEAVING_STRATEGIES = ("spawn", "fork", "notebook")
"""Parts of the names of Lightning's strategies whose processes end with each training."""

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")
"""Lightning's names of strategies under which every process holds the whole model, as the recommenders need it."""

MOST_PROCESSES = 64
"""Processes that a machine without so many cores may start at most."""

LAUNCHERS = ("LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "LSB_JOBID")
"""Environment variables by which launchers tell a process which one of a job it is."""


def check_trainer(trainer: TrainerConfig, environment: Mapping[str, str] = os.environ) -> None:
    """Checks precision, devices, nodes and strategies; free of heavy imports unless a strategy is a section.

    Raises:
        UserError: naming the key and the values that it may have, or what this machine lacks.
    """
    for key in ("precision", "llm_precision"):
        check_precision(trainer, key)
    check_devices(trainer)
    check_gpus(trainer)
    check_nodes(trainer, environment)
    for key in ("strategy", "llm_strategy"):
        check_strategy(trainer, key)


def check_precision(trainer: TrainerConfig, key: str) -> None:
    """Checks that the device and the installed packages have a precision.

    Args:
        trainer: the trainer section.
        key: `precision` or `llm_precision`.

    Raises:
        UserError: if Lightning would take another one, or none.
    """
    precision = getattr(trainer, key)
    if precision in ("16", "16-mixed") and not trainer.on_gpu:
        raise UserError(
            f"trainer.{key}={precision}: is for GPUs, trainer={trainer.name} has none; set it to bf16-mixed"
        )
    if precision.startswith("transformer-engine") and not installed("transformer_engine"):
        raise UserError(f"trainer.{key}={precision}: needs the package transformer_engine; set it to bf16-mixed")


def check_devices(trainer: TrainerConfig) -> None:
    """Checks that the devices are a number or, of GPUs, a list of their numbers.

    Raises:
        UserError: naming what they may be.
    """
    count = number_of_devices(trainer)
    if count is None:
        allowed = "a number from 1" + (", -1 for all GPUs, or a list of GPUs such as [0,2]" if trainer.on_gpu else "")
        raise UserError(f"trainer.devices={shown(trainer.devices)}: must be {allowed}, on trainer={trainer.name}")
    if not trainer.on_gpu and count > max(MOST_PROCESSES, os.cpu_count() or 1):
        raise UserError(
            f"trainer.devices={shown(count)}: this machine has {os.cpu_count()} cores, and a process each would not "
            "fit; set it lower"
        )


def number_of_devices(trainer: TrainerConfig) -> int | None:
    """How many devices the trainer uses; -1 for all GPUs; None if `trainer.devices` says nothing of the kind."""
    devices = trainer.devices
    if isinstance(devices, str):
        text = devices.strip()
        if text == "auto":
            return -1 if trainer.on_gpu else 1
        parts = [part.strip() for part in text.split(",") if part.strip()]
        if not parts or not all(part.isascii() and part.lstrip("-").isdecimal() and len(part) < 10 for part in parts):
            return None
        devices = [int(part) for part in parts] if "," in text else int(parts[0])
    if isinstance(devices, int) and not isinstance(devices, bool):
        return devices if devices > 0 or (devices == -1 and trainer.on_gpu) else None
    if isinstance(devices, list | tuple) and trainer.on_gpu:
        numbers = [each for each in devices if isinstance(each, int) and not isinstance(each, bool) and each >= 0]
        return len(numbers) if numbers and len(set(numbers)) == len(devices) else None
    return None


def check_gpus(trainer: TrainerConfig) -> None:
    """Checks that this machine has the GPUs that the trainer uses.

    Raises:
        UserError: if it has fewer.
    """
    if not trainer.on_gpu:
        return
    import torch

    wanted = number_of_devices(trainer) or 1
    listed = trainer.devices if isinstance(trainer.devices, list | tuple) else []
    if torch.cuda.device_count() < max(wanted, 1, *(int(each) + 1 for each in listed)):
        needed = f"the GPUs {shown(list(listed))}" if listed else f"{wanted if wanted > 0 else 'a'} GPU(s)"
        raise UserError(
            f"trainer={trainer.name} needs {needed}, this machine shows "
            f"{torch.cuda.device_count()}; choose trainer=cpu, or run it where the GPUs are"
        )


def check_nodes(trainer: TrainerConfig, environment: Mapping[str, str]) -> None:
    """Checks that a launcher has started the processes of the other nodes: without one, the run would wait for ever.

    Raises:
        UserError: if there is none, or torchrun has started another number of processes.
    """
    if trainer.num_nodes > 1 and not any(name in environment for name in LAUNCHERS):
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}: nothing has started the other nodes; start the run on each with "
            "torchrun or srun, or set it to 1"
        )
    started, wanted = environment.get("WORLD_SIZE", ""), number_of_devices(trainer)
    known = "TORCHELASTIC_RUN_ID" in environment and started.isdecimal() and wanted is not None and wanted > 0
    if known and int(started) != (wanted or 0) * trainer.num_nodes:
        raise UserError(
            f"trainer.devices={shown(trainer.devices)}, trainer.num_nodes={trainer.num_nodes}: torchrun has started "
            f"{started} processes; set both to what it was told"
        )


def check_strategy(trainer: TrainerConfig, key: str) -> None:
    """Checks a strategy of the trainer.

    Args:
        trainer: the trainer section.
        key: `strategy` or `llm_strategy`.

    Raises:
        UserError: if Lightning has no such strategy, its settings are not its own, its package is missing, or its
            processes end with each training: the stages of a run share their processes.
    """
    strategy = getattr(trainer, key)
    if isinstance(strategy, str) and any(part in strategy for part in LEAVING_STRATEGIES):
        raise UserError(f"trainer.{key}={shown(strategy)}: its processes end with each training; set it to ddp")
    if isinstance(strategy, str) and strategy in STRATEGIES:
        return
    if not isinstance(strategy, dict):
        raise UserError(
            f"trainer.{key}={shown(strategy)}: must be {', '.join(STRATEGIES[:2])} or a section with a _target_, as in "
            f"trainer=deepspeed_zero3_offload{nearest(strategy, STRATEGIES)}"
        )
    found = check_target(f"trainer.{key}", strategy)
    from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy

    if not inspect.isclass(found) or not issubclass(found, Strategy):
        raise UserError(f"trainer.{key}._target_={shown(strategy['_target_'])}: must be a strategy of Lightning")
    if issubclass(found, DeepSpeedStrategy) and not installed("deepspeed"):
        raise UserError(f"trainer={trainer.name} needs DeepSpeed, which is for Linux: pip install deepspeed")
