"""Whether this machine has the devices and packages that a configuration asks for."""

from __future__ import annotations

import importlib.util
import inspect

from tslrec.config import Config, TrainerConfig
from tslrec.stages.registry import runs_llm
from tslrec.system.errors import UserError
from tslrec.system.targets import check_target

GIVEN_TO_TRACKER = frozenset({"config", "identity", "folder"})
"""Parameters of a tracker that Python fills in."""

LEAVING_STRATEGIES = ("spawn", "fork", "notebook")
"""Parts of the names of Lightning's strategies whose processes end with each training."""


def check_machine(config: Config) -> None:
    """Checks the tracker, the GPUs and the strategies.

    Raises:
        UserError: naming what this machine lacks, and what to choose instead.
    """
    check_tracker(config)
    check_gpus(config.trainer)
    for key in ("strategy", "llm_strategy"):
        check_strategy(config.trainer, key)


def check_tracker(config: Config) -> None:
    """Checks that the tracker takes the options it is given, and that its package is installed.

    Raises:
        UserError: if not.
    """
    tracker = check_target("logger", config.logger, given=GIVEN_TO_TRACKER)
    package = getattr(tracker, "package", None)
    if package is not None and not is_installed(package):
        name = config.logger["name"]
        raise UserError(f"logger={name} needs a package: pip install 'tslrec[{name}]', or set logger=csv")


def check_gpus(trainer: TrainerConfig) -> None:
    """Checks that this machine has as many GPUs as the trainer uses.

    Raises:
        UserError: if it has fewer.
    """
    if not is_on_gpu(trainer):
        return
    import torch

    wanted = trainer.devices if isinstance(trainer.devices, int) else 1
    if torch.cuda.device_count() < max(wanted, 1):
        raise UserError(
            f"trainer={trainer.name} needs {wanted if wanted > 0 else 'a'} GPU(s), this machine shows "
            f"{torch.cuda.device_count()}; choose trainer=cpu, or run it where the GPUs are"
        )


def check_strategy(trainer: TrainerConfig, key: str) -> None:
    """Checks a strategy of the trainer.

    Args:
        trainer: the trainer section.
        key: `strategy` or `llm_strategy`.

    Raises:
        UserError: if its settings are not its own, its package is missing, or its processes end with each training:
            the stages of a run share their processes.
    """
    strategy = getattr(trainer, key)
    if isinstance(strategy, str):
        if any(part in strategy for part in LEAVING_STRATEGIES):
            raise UserError(f"trainer.{key}={strategy}: its processes end with each training; set it to ddp")
        return
    if not isinstance(strategy, dict):
        return
    found = check_target(f"trainer.{key}", strategy)
    from lightning.pytorch.strategies import DeepSpeedStrategy

    if inspect.isclass(found) and issubclass(found, DeepSpeedStrategy) and not is_installed("deepspeed"):
        raise UserError(f"trainer={trainer.name} needs DeepSpeed, which is for Linux: pip install deepspeed")


def check_llm(config: Config) -> None:
    """Checks that this machine and the strategy can hold the language model's weights in the configured precision.

    A method that runs no language model passes.

    Raises:
        UserError: naming the setting, and what to set it to.
    """
    llm, trainer = config.llm, config.trainer
    if not runs_llm(config):
        return
    on_gpu = is_on_gpu(trainer)
    if llm.dtype == "float16" and not on_gpu:
        raise UserError(f"llm.dtype=float16: is for GPUs, trainer={trainer.name} has none; set it to float32")
    if llm.weight_bits is None:
        return
    wanted = f"llm.weight_bits={llm.weight_bits}"
    if not on_gpu:
        raise UserError(f"{wanted}: needs a GPU, trainer={trainer.name} has none; set it to null")
    if llm.random is not None:
        raise UserError(f"{wanted}: llm={llm.name} has random weights, which are not quantised; set it to null")
    if isinstance(trainer.llm_strategy, dict) or trainer.llm_strategy not in ("auto", "ddp"):
        raise UserError(f"{wanted}: trainer={trainer.name} partitions weights, not quantised ones; choose trainer=ddp")
    if not is_installed("bitsandbytes"):
        raise UserError(f"{wanted}: needs bitsandbytes: pip install 'tslrec[quantized]'")


def is_on_gpu(trainer: TrainerConfig) -> bool:
    """Whether the trainer computes on GPUs."""
    return trainer.on_gpu


def is_installed(package: str) -> bool:
    """Whether Python can import a package."""
    return importlib.util.find_spec(package) is not None
