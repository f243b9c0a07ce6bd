"""Whether this machine has the devices and packages that a configuration asks for."""

from __future__ import annotations

from tslrec.config import Config
from tslrec.pipeline.check_trainer import check_trainer
from tslrec.stages.method_stages import runs_llm
from tslrec.system.errors import UserError
from tslrec.system.optional_packages import installed
from tslrec.system.targets import check_target

GIVEN_TO_TRACKER = frozenset({"config", "identity", "folder"})
"""Parameters of a tracker that Python fills in."""


def check_machine(config: Config) -> None:
    """Checks the trainer section and the tracker.

    Raises:
        UserError: naming what this machine lacks, and what to choose instead.
    """
    check_trainer(config.trainer)
    check_tracker(config)


def check_tracker(config: Config) -> None:
    """Checks that the tracker takes the options it is given, and that its package is installed.

    Raises:
        UserError: if not.
    """
    tracker = check_target("logger", config.logger, given=GIVEN_TO_TRACKER)
    package = getattr(tracker, "package", None)
    if package is not None and not installed(package):
        name = config.logger["name"]
        raise UserError(f"logger={name} needs a package: pip install 'tslrec[{name}]', or set logger=csv")


def check_llm(config: Config) -> None:
    """Checks that this machine and the strategy can hold the language model's weights in the configured precision.

    A method that runs no language model passes.

    Raises:
        UserError: naming the setting, and what to set it to.
    """
    llm, trainer = config.llm, config.trainer
    if not runs_llm(config):
        return
    on_gpu = trainer.on_gpu
    if llm.dtype == "float16" and not on_gpu:
        raise UserError(f"llm.dtype=float16: is for GPUs, trainer={trainer.name} has none; set it to float32")
    strategy = trainer.llm_strategy
    if isinstance(strategy, dict) and strategy.get("stage") == 3 and "p5_llm" in config.method.stages:
        raise UserError(
            f"trainer={trainer.name}: ZeRO stage 3 gathers weights in every pass of all processes, whose beam searches "
            f"have different numbers of passes in method={config.method.name}; choose another trainer"
        )
    if llm.weight_bits is None:
        return
    wanted = f"llm.weight_bits={llm.weight_bits}"
    if not on_gpu:
        raise UserError(f"{wanted}: needs a GPU, trainer={trainer.name} has none; set it to null")
    if llm.random is not None:
        raise UserError(f"{wanted}: llm={llm.name} has random weights, which are not quantised; set it to null")
    if isinstance(trainer.llm_strategy, dict) or trainer.llm_strategy not in ("auto", "ddp"):
        raise UserError(f"{wanted}: trainer={trainer.name} partitions weights, not quantised ones; choose trainer=ddp")
    if not installed("bitsandbytes"):
        raise UserError(f"{wanted}: needs bitsandbytes: pip install 'tslrec[quantized]'")
