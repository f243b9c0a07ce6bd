"""Counts what ZeRO-3 gathers in the SFT's steps, on one CPU process: `gathering_scenario.py FOLDER CHECKPOINTING`.

CHECKPOINTING is 1 or 0. Writes FOLDER/gathered.json: for each step the number of parameters gathered, each as often as
it was, and the largest number that was gathered at a time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning
from deepspeed.runtime.zero import partitioned_param_coordinator as coordinator
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

from support.sft_market import sft_context
from tslrec.llm.shape import shape_of
from tslrec.llm.tiny import byte_tokenizer, random_llama
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.sft import stage as sft
from tslrec.system.exits import run_program
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.deepspeed_zero import ZeroStrategy
from tslrec.training.trainer import StageTrainers

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
SHAPE = shape_of(LLMConfig(name="random", random=SIZES))
LAYER = SHAPE.linear_parameters // SIZES["num_hidden_layers"]
LIVE, PREFETCHED = 3 * LAYER, LAYER // 6
"""In proportion to the model as DeepSpeed's defaults are to one of 13 billion parameters."""
SMALL = 600
"""Below so many elements a parameter is not partitioned: norms and LoRA."""
PRIVATE = "_PartitionedParameterCoordinator__"


class Counts:
    """Counts what a coordinator gathers between two ends of a step."""

    def __init__(self) -> None:
        self.gathered = self.held = 0
        self.steps: list[tuple[int, int]] = []

    def install(self) -> None:
        """Counts from now on."""
        watched: Any = coordinator.PartitionedParameterCoordinator
        gather, end = getattr(watched, PRIVATE + "all_gather_params_"), watched.reset_step

        def counted(owner: Any, params: Any, *rest: Any, **settings: Any) -> None:
            self.gathered += sum(each.ds_numel for each in params if each.ds_status == ZeroParamStatus.NOT_AVAILABLE)
            gather(owner, params, *rest, **settings)
            self.held = max(self.held, getattr(owner, PRIVATE + "n_available_params"))

        def ended(owner: Any) -> None:
            self.steps.append((self.gathered, self.held))
            self.gathered = self.held = 0
            end(owner)

        setattr(watched, PRIVATE + "all_gather_params_", counted)
        watched.reset_step = ended


def main(folder: Path, checkpointing: bool) -> None:
    random_llama(SIZES).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    strategy = ZeroStrategy(
        stage=3,
        offload_optimizer=True,
        offload_parameters=True,
        persistence_threshold=SMALL,
        process_group_backend="gloo",
    )
    assert isinstance(strategy.config, dict)
    strategy.config["zero_optimization"] |= {
        "stage3_max_live_parameters": LIVE,
        "stage3_max_reuse_distance": LIVE,
        "stage3_prefetch_bucket_size": PREFETCHED,
    }
    counts = Counts()
    counts.install()

    def make_trainer(**settings: Any) -> lightning.Trainer:
        config = TrainerConfig("cpu", llm_strategy=strategy, checkpoint_seconds=1e9)
        checkpoints = Checkpoints(folder / "checkpoints")
        return StageTrainers(config, "sft", folder / "sft", checkpoints=checkpoints, meter=Meter())(**settings)

    lora = LoraConfig(rank=4, alpha=8)
    llm = LLMConfig(name="random", path=str(folder / "model"), lora=lora, gradient_checkpointing=checkpointing)
    sft.run(sft_context(folder, make_trainer, "sft", llm, max_epochs=1))
    (folder / "gathered.json").write_text(json.dumps(counts.steps))


if __name__ == "__main__":
    run_program(lambda: main(Path(sys.argv[1]), sys.argv[2] == "1"))
