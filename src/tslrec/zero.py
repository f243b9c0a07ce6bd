"""DeepSpeed's ZeRO for the language model: where it runs, what a checkpoint keeps, how partitioned weights are read."""

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

from tslrec.allocator import freed_memory_goes_back
from tslrec.state_files import StateFiles

SHARDS = "zero"
"""DeepSpeed's own files within a checkpoint, some for each process."""
REST = "rest"
"""What a checkpoint holds beside weights and optimizer."""


class ZeroStrategy(DeepSpeedStrategy):
    """Lightning's strategy with checkpoints like all others of the project, and on CPUs as well, where it is tested.

    A checkpoint holds what is trained and its optimizer states as DeepSpeed writes them, and the rest as `StateFiles`
    does. DeepSpeed's files are pickles; they are read only once their hashes were found in the checkpoint's manifest.

    Args:
        stage: 2 partitions gradients and optimizer states, 3 the parameters too.
        offload_optimizer: keep the optimizer states in host memory.
        offload_parameters: of stage 3: the parameters as well.
        persistence_threshold: of stage 3: parameters with fewer numbers than this stay whole in every process; None for
            DeepSpeed's default.
        process_group_backend: None for the device's usual one.
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
            # With them every checkpoint would hold the 13 billion parameters that are not trained.
            exclude_frozen_parameters=True,
        )
        assert isinstance(self.config, dict)
        # So few parameters are trained that PyTorch's AdamW does, offloaded or not; DeepSpeed's own is compiled first.
        self.config["zero_force_ds_cpu_optimizer"] = False
        if persistence_threshold is not None:
            self.config["zero_optimization"]["stage3_param_persistence_threshold"] = persistence_threshold

    def setup_environment(self) -> None:
        """As any strategy does; Lightning's DeepSpeed refuses all but CUDA here."""
        warnings.filterwarnings("ignore", message=".*`torch.distributed.* is deprecated.*", category=FutureWarning)
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        import deepspeed

        reset_seed()
        self.set_world_ranks()
        # For CPUs it would compile, for minutes, what speeds up their collectives; gloo's are good enough for a test.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._init_deepspeed_distributed()

    @property
    def root_device(self) -> torch.device:
        """This process's device, with an index, by which DeepSpeed knows a device."""
        device = super().root_device
        return torch.device(device.type, self.local_rank) if device.index is None else device

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Writes a folder, in which all processes take part."""
        folder = Path(self.broadcast(filepath))
        self.deepspeed_engine.save_checkpoint(str(folder / SHARDS), tag=SHARDS, exclude_frozen_parameters=True)
        if self.is_global_zero:
            rest = {key: value for key, value in checkpoint.items() if key not in ("state_dict", "optimizer_states")}
            StateFiles().save_checkpoint(rest, folder / REST)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Gives the engine its weights and optimizer states, and returns the rest."""
        self.deepspeed_engine.load_checkpoint(
            str(Path(checkpoint_path, SHARDS)), tag=SHARDS, load_module_strict=False, load_lr_scheduler_states=False
        )
        return StateFiles().load_checkpoint(Path(checkpoint_path, REST))


@contextmanager
def partitioned_loading(strategy: Strategy) -> Iterator[None]:
    """Within it, what transformers loads is partitioned as it is read, if the strategy is ZeRO-3.

    The first process reads the files and hands out a module at a time, of which each keeps its share. Only what
    `from_pretrained` makes is treated so. Layers that are made around it, such as LoRA's, start as they always do and
    are partitioned when the training begins; made partitioned, they would not start with the values that they ask for.

    Args:
        strategy: of the trainer, its processes there.
    """
    if not (isinstance(strategy, ZeroStrategy) and strategy.zero_stage_3):
        yield
        return
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    # Adds in which precision the engine will want them.
    strategy._init_config_if_needed()
    assert isinstance(strategy.config, dict)
    # Transformers refers to it weakly.
    told = HfDeepSpeedConfig({"train_micro_batch_size_per_gpu": 1, **strategy.config})
    try:
        # Every module is whole in every process for a moment.
        with freed_memory_goes_back():
            yield
    finally:
        unset_hf_deepspeed_config()
        del told


def whole_size(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers parameters are, partitioned ones as a whole."""
    return sum(int(getattr(parameter, "ds_numel", parameter.numel())) for parameter in parameters)


def whole(parameters: Iterable[nn.Parameter], *, changed: bool = False) -> AbstractContextManager[None]:
    """For its time, parameters that ZeRO-3 has partitioned are whole in every process, all of which must enter it.

    Args:
        parameters: any; those that are not partitioned are left alone.
        changed: keep what the first process makes of them.
    """
    partitioned = [parameter for parameter in parameters if hasattr(parameter, "ds_id")]
    if not partitioned:
        return nullcontext()
    import deepspeed

    gathered = deepspeed.zero.GatheredParameters(partitioned, modifier_rank=0 if changed else None)
    return cast(AbstractContextManager[None], gathered)
