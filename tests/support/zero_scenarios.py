"""The preference SFT under a strategy, with and without an interruption: `zero_scenarios.py FOLDER STRATEGY PROCESSES`.

`test_deepspeed_zero.py` starts this script once for each process. The language model is the one in FOLDER/model, or a
random one where there is none. Rank 0 writes the stage's results below FOLDER: to `whole` those of a training without
dropout, to `uninterrupted` and `resumed` those with dropout and held-back users; and to `facts.json` facts of `whole`
and `uninterrupted`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch

from support.sft_market import sft_context
from tslrec.llm.prompted import PromptedLLM
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.context import StageContext
from tslrec.stages.sft import stage as sft
from tslrec.system.exits import run_program
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.deepspeed_zero import full_numel, gathered
from tslrec.training.trainer import StageTrainers

ZERO = {"_target_": "tslrec.training.deepspeed_zero.ZeroStrategy", "process_group_backend": "gloo"}
STRATEGIES: dict[str, Any] = {
    "plain": "auto",
    "zero2": {**ZERO, "stage": 2},
    "zero2_offload": {**ZERO, "stage": 2, "offload_optimizer": True},
    # With a threshold above 0 no parameter of a model this small would be partitioned.
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
"""The strategies that run with gradient checkpointing, which a language model that fills its GPUs needs."""
TITLES = "_titles"
"""End of the name of a strategy under which items are read by their titles alone, so that no input has a gradient."""
STRATEGIES |= {f"plain{TITLES}": "auto", f"zero3{TITLES}": STRATEGIES["zero3_offload"]}
STOPPED_AT = 7
MODEL = "model"

# 77 users give 10 steps; the interruption comes after a validation. The last batch of 19 held-back users has one user.
HELD_BACK: dict[str, Any] = {
    "dropout": 0.1,
    "held_back": 0.2,
    "eval_batch_size": 6,
    "steps_per_epoch": 5,
    "max_epochs": 2,
}


class InterruptedHereError(Exception):
    """Ends a training as a kill would, while the process lives on."""


class Interruption(lightning.Callback):
    """Raises `InterruptedHereError` after `STOPPED_AT` steps."""

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == STOPPED_AT:
            raise InterruptedHereError


class Beginning(lightning.Callback):
    """Notes facts of the model after loading, and as the strategy has distributed it before the first step."""

    def __init__(self) -> None:
        self.facts: dict[str, float] = {}

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        """Counts the frozen parameters as soon as the module has loaded them, before the strategy distributes them."""
        make_model = pl_module.make_model

        def watched() -> Any:
            model = make_model()
            frozen = [each for name, each in model.adapted.named_parameters() if "lora_" not in name]
            self.facts["numbers_loaded"] = float(full_numel(frozen))
            held = sum(each.numel() + (each.ds_tensor.numel() if hasattr(each, "ds_tensor") else 0) for each in frozen)
            self.facts["numbers_held_after_loading"] = float(held)
            return model

        pl_module.make_model = watched

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        model = next(module for module in pl_module.modules() if isinstance(module, PromptedLLM))
        self.facts["checkpointed_layers"] = float(sum("forward" in vars(each) for each in layers_of(model)))
        parameters = dict(model.adapted.named_parameters())
        self.facts["bf16_numbers"] = float(full_numel([p for p in parameters.values() if p.dtype == torch.bfloat16]))
        self.facts["rounded_buffers"] = float(sum(each.dtype == torch.bfloat16 for each in pl_module.buffers()))
        (optimizer,) = trainer.optimizers
        # ZeRO-3's copies of the trained parameters, which its optimizer updates.
        masters = getattr(optimizer, "fp32_partitioned_groups_flat", [])
        self.facts["float32_masters"] = float(sum(each.numel() for each in masters if each.dtype == torch.float32))
        self.facts["numbers_held"] = float(sum(each.numel() for each in parameters.values()))
        lora_b = [each for name, each in parameters.items() if "lora_B" in name]
        with gathered(lora_b):
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
    items: dict[str, Any] = {"item_input": "title" if strategy.endswith(TITLES) else "embedding"}

    def run(name: str, *callbacks: lightning.Callback, **changes: Any) -> dict[str, Any]:
        def make_trainer(**settings: Any) -> lightning.Trainer:
            checkpoints = Checkpoints(folder / f"{name}.checkpoints")
            often = replace(config, checkpoint_seconds=0 if name == "resumed" else 1e9)
            trainers = StageTrainers(often, "sft", folder / name, checkpoints=checkpoints, meter=Meter())
            return trainers(**{**settings, "callbacks": [*settings["callbacks"], *callbacks]})

        return sft.run(context_of(folder, name, make_trainer, checkpointing=checkpointing, **items, **changes))

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
    make_trainer: Callable[..., lightning.Trainer],
    *,
    dropout: float = 0.0,
    checkpointing: bool = False,
    **numbers: Any,
) -> StageContext:
    """The context of the SFT stage, with the language model in `folder`, or a random one where there is none."""
    lora = LoraConfig(rank=4, alpha=8, dropout=dropout)
    llm = LLMConfig(name="tiny", lora=lora, gradient_checkpointing=checkpointing)
    if (folder / MODEL).is_dir():
        llm.path = str(folder / MODEL)
    else:
        llm.random = {}
    return sft_context(folder, make_trainer, name, llm, **numbers)


if __name__ == "__main__":
    run_program(lambda: main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
