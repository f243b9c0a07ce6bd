"""The preference SFT under a strategy, whole and interrupted: `python zero_scenarios.py FOLDER STRATEGY PROCESSES`.

Started by `test_zero.py`, once in each process. The language model is the one in FOLDER/model, or a random one where
there is none. Below FOLDER the first process leaves what the stage writes: in `whole` without dropout, in
`uninterrupted` and `resumed` with it and with held-back users; and facts of the first two.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch

from sft_market import sft_context
from tslrec import ranks
from tslrec.checkpoints import Checkpoints
from tslrec.config import LLMConfig, LoraConfig, TrainerConfig
from tslrec.llm.prompted import PromptedLLM
from tslrec.stages import sft
from tslrec.stages.context import MakeTrainer, StageContext
from tslrec.trainers import StageTrainers
from tslrec.zero import whole, whole_size

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
STRATEGIES["zero3_checkpointing"] = STRATEGIES["zero3_bf16"] = STRATEGIES["zero3_offload"]
CHECKPOINTING = {"zero3_checkpointing", "zero3_bf16"}
"""What a language model that fills its GPUs needs: its activations computed again."""
STOPPED_AT = 7
MODEL = "model"

# Of 77 users 10 steps, interrupted after a validation; of 19 held-back ones a last batch with one.
HELD_BACK: dict[str, Any] = {
    "dropout": 0.1,
    "held_back": 0.2,
    "eval_batch_size": 6,
    "steps_per_epoch": 5,
    "max_epochs": 2,
}


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

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Here the strategy has not touched it yet: it is as it was loaded."""
        make_model = pl_module.make_model

        def watched() -> Any:
            model = make_model()
            frozen = [each for name, each in model.adapted.named_parameters() if "lora_" not in name]
            self.facts["numbers_loaded"] = float(whole_size(frozen))
            held = sum(each.numel() + (each.ds_tensor.numel() if hasattr(each, "ds_tensor") else 0) for each in frozen)
            self.facts["numbers_held_after_loading"] = float(held)
            return model

        pl_module.make_model = watched

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        model = next(module for module in pl_module.modules() if isinstance(module, PromptedLLM))
        self.facts["checkpointed_layers"] = float(sum("forward" in vars(each) for each in layers_of(model)))
        parameters = dict(model.adapted.named_parameters())
        self.facts["bf16_numbers"] = float(whole_size([p for p in parameters.values() if p.dtype == torch.bfloat16]))
        self.facts["numbers_held"] = float(sum(each.numel() for each in parameters.values()))
        lora_b = [each for name, each in parameters.items() if "lora_B" in name]
        with whole(lora_b):
            self.facts["lora_b_numbers"] = float(sum(each.numel() for each in lora_b))
            self.facts["lora_b_largest"] = max(float(each.detach().abs().max()) for each in lora_b)


def layers_of(model: PromptedLLM) -> list[torch.nn.Module]:
    """The decoder layers of the language model."""
    return [each for each in model.modules() if type(each).__name__ == "LlamaDecoderLayer"]


def main(folder: Path, strategy: str, processes: int) -> None:
    precision = "bf16-true" if strategy.endswith("bf16") else "32-true"
    config = TrainerConfig("cpu", devices=processes, llm_strategy=STRATEGIES[strategy], llm_precision=precision)
    checkpointing = strategy in CHECKPOINTING
    beginning = Beginning()

    def run(name: str, *callbacks: lightning.Callback, **changes: Any) -> dict[str, Any]:
        def make_trainer(**settings: Any) -> lightning.Trainer:
            checkpoints = Checkpoints(folder / f"{name}.checkpoints", print)
            often = replace(config, checkpoint_seconds=0 if name == "resumed" else 1e9)
            trainers = StageTrainers(often, "sft", folder / name, checkpoints=checkpoints)
            return trainers(**{**settings, "callbacks": [*settings["callbacks"], *callbacks]})

        return sft.run(context_of(folder, name, make_trainer, checkpointing=checkpointing, **changes))

    metrics = run("whole", beginning, max_epochs=1)
    held_back = run("uninterrupted", **HELD_BACK)
    try:
        run("resumed", Interruption(), **HELD_BACK)
    except InterruptedHereError:
        assert held_back == {**run("resumed", **HELD_BACK), "training_seconds": held_back["training_seconds"]}
    else:
        raise AssertionError("the training was not interrupted")
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        validated = {name: value for name, value in held_back.items() if name.startswith("validation")}
        (folder / "facts.json").write_text(json.dumps({**metrics, **beginning.facts, **validated}))


def context_of(
    folder: Path,
    name: str,
    make_trainer: MakeTrainer,
    *,
    dropout: float = 0.0,
    checkpointing: bool = False,
    **numbers: Any,
) -> StageContext:
    """The stage's context with the language model in `folder`, or a random one."""
    lora = LoraConfig(rank=4, alpha=8, dropout=dropout)
    llm = LLMConfig(name="tiny", lora=lora, gradient_checkpointing=checkpointing)
    if (folder / MODEL).is_dir():
        llm.path = str(folder / MODEL)
    else:
        llm.random = {}
    return sft_context(folder, make_trainer, name, llm, **numbers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    ranks.leave()
