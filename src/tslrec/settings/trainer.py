"""What may be set of the machine: devices, precision, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from tslrec.settings.bounds import bounded, one_of

PRECISIONS = (
    "32-true", "16-mixed", "bf16-mixed", "bf16-true", "16-true", "64-true", "32", "16", "bf16", "64",
    "transformer-engine", "transformer-engine-float16",
)  # fmt: skip
"""Lightning's names of precisions, the short ones included."""


@dataclass
class TrainerConfig:
    """Where and in which precision stages run.

    Attributes:
        name: its name in messages.
        accelerator: `cpu`, `gpu` or `cuda`.
        devices: processes per node, one per device; -1 or `auto`: every GPU of the node; a list: the GPUs with these
            numbers.
        num_nodes: nodes of the job.
        strategy: of the recommenders: a Lightning name, or a section with a `_target_`.
        precision: of the recommenders, as Lightning names it (`32-true`, `bf16-mixed`, …).
        llm_strategy: of the language model.
        llm_precision: of what is trained with the language model, whose own frozen weights have `llm.dtype`.
            `bf16-true` rounds the trained weights to bf16, too; of the strategies only DeepSpeed keeps fp32 copies.
        matmul_precision: of float32 products in training steps on a GPU: `highest` is float32; `high` and `medium`
            allow TF32, which keeps 10 bits of each factor's fraction. Evaluations and CPUs always use `highest`.
        deterministic: on a GPU use only operations that give the same bits again, and refuse those that have none.
        checkpoint_seconds: wall time between two checkpoints, and so the most that a killed training loses; 0 writes
            one after every optimizer step.
        step_graphs: train recommenders by CUDA graphs where that is possible: on one GPU, in fp32, without a sampled
            softmax. False: launch each kernel of each step.
        device: the kind of device that `tslrec plan` forecasts for: a name in `tslrec.system.device_profiles`, or a
            section with the numbers of another device. It changes no result.
    """

    name: str = MISSING
    accelerator: str = one_of("cpu", ("cpu", "gpu", "cuda"))
    devices: Any = 1
    num_nodes: int = bounded(1, least=1)
    strategy: Any = "auto"
    precision: str = one_of("32-true", PRECISIONS)
    llm_strategy: Any = "auto"
    llm_precision: str = one_of("32-true", PRECISIONS)
    matmul_precision: str = one_of("highest", ("highest", "high", "medium"))
    deterministic: bool = False
    checkpoint_seconds: float = bounded(300.0, least=0)
    step_graphs: bool = True
    device: Any = "cpu"

    @property
    def on_gpu(self) -> bool:
        """Whether stages compute on GPUs."""
        return self.accelerator in ("gpu", "cuda")
