"""DeepSpeed's ZeRO for the language model: the strategy, its checkpoints, and access to partitioned parameters."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import DeepSpeedStrategy, Strategy
from torch import nn

from tslrec.system.memory import freed_memory_goes_back
from tslrec.training.checkpoint_io import CheckpointFiles

SHARDS = "zero"
"""The part of a checkpoint that DeepSpeed writes: trained weights and optimizer states, in files of each rank."""
REST = "rest"
"""The part of a checkpoint with everything else, in the project's own format."""


class ZeroStrategy(DeepSpeedStrategy):
    """Lightning's DeepSpeed strategy with the project's checkpoints; it also runs on CPUs, for tests.

    A checkpoint holds the trained weights and their optimizer states as DeepSpeed writes them, and everything else as
    `CheckpointFiles` does. DeepSpeed's files are pickles; they are read only after their hashes have been compared with
    the checkpoint's manifest.

    Args:
        stage: ZeRO stage: 2 partitions gradients and optimizer states, 3 the parameters too.
        offload_optimizer: keep the optimizer states in host memory.
        offload_parameters: with stage 3, keep the parameters in host memory, too.
        persistence_threshold: with stage 3, parameters with fewer elements than this are not partitioned; None:
            DeepSpeed's default.
        process_group_backend: the backend of `torch.distributed`; None: the device's usual one.
    """

    def __init__(
        self,
        *,
        stage: int = 2,
        offload_optimizer: bool = False,
        offload_parameters: bool = False,
        persistence_threshold: int | None = None,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(
            stage=stage,
            offload_optimizer=offload_optimizer,
            offload_parameters=offload_parameters,
            process_group_backend=process_group_backend,
            # A GPU copies from pageable memory at a fraction of the rate, and the program waits for it. PyTorch pins a
            # power of two of bytes for each parameter, so this takes up to twice the host memory.
            pin_memory=offload_optimizer or offload_parameters,
            # Otherwise every checkpoint would hold the frozen parameters, 13 billion for Llama-2-13B.
            exclude_frozen_parameters=True,
        )
        assert isinstance(self.config, dict)
        # So few parameters are trained that PyTorch's AdamW suffices, offloaded or not; DeepSpeed would first compile
        # its own.
        self.config["zero_force_ds_cpu_optimizer"] = False
        if persistence_threshold is not None:
            self.config["zero_optimization"]["stage3_param_persistence_threshold"] = persistence_threshold

    def setup_environment(self) -> None:
        """Sets up as other strategies do; Lightning's DeepSpeed strategy would refuse every device but CUDA here."""
        warnings.filterwarnings("ignore", message=".*`torch.distributed.* is deprecated.*", category=FutureWarning)
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        import deepspeed

        reset_seed()
        self.set_world_ranks()
        # On CPUs DeepSpeed would compile faster collectives for minutes; gloo's are good enough for a test.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._init_deepspeed_distributed()

    def init_deepspeed(self) -> None:
        """Starts the engine, which would leave all but the partitioned parameters of a module in host memory."""
        assert self.lightning_module is not None
        self.lightning_module.to(self.root_device)
        super().init_deepspeed()

    @property
    def root_device(self) -> torch.device:
        """This rank's device, always with an index, which DeepSpeed needs."""
        device = super().root_device
        return torch.device(device.type, self.local_rank) if device.index is None else device

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Writes the checkpoint's folder; all ranks call it."""
        folder = Path(self.broadcast(filepath))
        self.deepspeed_engine.save_checkpoint(str(folder / SHARDS), tag=SHARDS, exclude_frozen_parameters=True)
        if self.is_global_zero:
            rest = {key: value for key, value in checkpoint.items() if key not in ("state_dict", "optimizer_states")}
            CheckpointFiles().save_checkpoint(rest, folder / REST)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Loads weights and optimizer states into the engine, and returns everything else."""
        self.deepspeed_engine.load_checkpoint(
            str(Path(checkpoint_path, SHARDS)), tag=SHARDS, load_module_strict=False, load_lr_scheduler_states=False
        )
        return CheckpointFiles().load_checkpoint(Path(checkpoint_path, REST))


@contextmanager
def partitioned_loading(strategy: Strategy) -> Iterator[None]:
    """While active, and if the strategy is ZeRO-3, transformers partitions weights as it loads them.

    Rank 0 reads the files and sends one module at a time; each rank keeps its own part. Only what `from_pretrained`
    makes is loaded so. Layers that are added to it, such as LoRA's, are initialised as usual and partitioned when
    training begins: partitioned from the start, they would not get the initial values that they ask for.

    Args:
        strategy: the trainer's, after its processes were started.
    """
    if not (isinstance(strategy, ZeroStrategy) and strategy.zero_stage_3):
        yield
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    # Adds the precision in which the engine expects the weights.
    strategy._init_config_if_needed()
    assert isinstance(strategy.config, dict)
    # Transformers keeps only a weak reference to this object.
    zero_config = HfDeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, **strategy.config})
    try:
        # For a moment every rank holds each module at its full size.
        with freed_memory_goes_back():
            yield
    finally:
        unset_hf_deepspeed_config()
        del zero_config


def full_numel(parameters: Iterable[nn.Parameter]) -> int:
    """Number of elements, counting parameters that ZeRO-3 has partitioned at their full size."""
    return sum(int(getattr(parameter, "ds_numel", parameter.numel())) for parameter in parameters)


def gathered(parameters: Iterable[nn.Parameter], *, changed: bool = False) -> AbstractContextManager[None]:
    """While active, parameters that ZeRO-3 has partitioned have their full size on every rank; all ranks must enter.

    Args:
        parameters: any; those that are not partitioned are left as they are.
        changed: keep the changes that rank 0 makes to them.
    """
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not partitioned:
        return nullcontext()
    import deepspeed

    context = deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0 if changed else None)
    return cast(AbstractContextManager[None], context)
