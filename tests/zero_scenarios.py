"""The preference SFT under a strategy, whole and interrupted: `python zero_scenarios.py FOLDER STRATEGY PROCESSES`.

Started by `test_zero.py`, once in each process. Below FOLDER the first one leaves what the stage writes: in `whole`
without dropout, in `uninterrupted` and `resumed` with it; and facts of the first of these trainings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning
import torch

from sft_market import sft_context
from tslrec.checkpoints import Checkpoints
from tslrec.config import LLMConfig, LoraConfig, TrainerConfig
from tslrec.llm.prompted import PromptedLLM
from tslrec.stages import sft
from tslrec.trainers import StageTrainers
from tslrec.zero import whole

ZERO = {"_target_": "tslrec.zero.ZeroStrategy", "process_group_backend": "gloo"}
STRATEGIES: dict[str, Any] = {
    "plain": "auto",
    "zero2": {**ZERO, "stage": 2},
    "zero2_offload": {**ZERO, "stage": 2, "offload_optimizer": True},
    # Without a threshold of 0 all parameters of a model this small would stay whole.
    "zero3_offload": {
        **ZERO,
        "stage": 3,
        "offload_optimizer": True,
        "offload_parameters": True,
        "persistence_threshold": 0,
    },
}
STOPPED_AT = 7


class InterruptedHereError(Exception):
    """Ends a training as a kill would, but in a process that goes on."""


class Interruption(lightning.Callback):
    """Raises after some steps."""

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == STOPPED_AT:
            raise InterruptedHereError


class Beginning(lightning.Callback):
    """Looks at the model where the strategy has put it, before the first step."""

    def __init__(self) -> None:
        self.facts: dict[str, float] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        model = next(module for module in pl_module.modules() if isinstance(module, PromptedLLM))
        parameters = dict(model.adapted.named_parameters())
        self.facts["numbers_held"] = float(sum(each.numel() for each in parameters.values()))
        lora_b = [each for name, each in parameters.items() if "lora_B" in name]
        with whole(lora_b):
            self.facts["lora_b_numbers"] = float(sum(each.numel() for each in lora_b))
            self.facts["lora_b_largest"] = max(float(each.detach().abs().max()) for each in lora_b)


def main(folder: Path, strategy: str, processes: int) -> None:
    config = TrainerConfig("cpu", devices=processes, llm_strategy=STRATEGIES[strategy], checkpoint_seconds=0)
    beginning = Beginning()

    def run(name: str, *callbacks: lightning.Callback, dropout: float = 0.0) -> dict[str, Any]:
        def make_trainer(**settings: Any) -> lightning.Trainer:
            checkpoints = Checkpoints(folder / f"{name}.checkpoints", print)
            trainers = StageTrainers(config, "sft", folder / name, checkpoints=checkpoints)
            return trainers(**{**settings, "callbacks": callbacks})

        llm = LLMConfig(name="tiny", random={}, lora=LoraConfig(rank=4, alpha=8, dropout=dropout))
        return sft.run(sft_context(folder, make_trainer, name, llm, max_epochs=1))

    metrics = run("whole", beginning)
    run("uninterrupted", dropout=0.1)
    try:
        run("resumed", Interruption(), dropout=0.1)
    except InterruptedHereError:
        run("resumed", dropout=0.1)
    else:
        raise AssertionError("the training was not interrupted")
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        (folder / "facts.json").write_text(json.dumps({**metrics, **beginning.facts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
