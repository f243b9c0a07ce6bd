"""Rival methods' stages that must give the same with two processes as with one: `python rival_scenarios.py FOLDER`.

`test_rivals_by_two.py` starts this script as the two processes of a job, and runs the same functions in its own
process. Nothing is dropped, since every process draws dropout masks of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from support.interactions import make_interactions
from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.data.item_titles import write_own_titles
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.language_models import EncoderDecoderConfig, LLMConfig, LoraConfig
from tslrec.settings.rivals import ItemIndexConfig, LlamaRecConfig, P5Config, PODConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages import backbone
from tslrec.stages.context import StageContext
from tslrec.stages.item_index import stage as item_index
from tslrec.stages.llamarec import stage as ranker
from tslrec.stages.p5 import stage as p5
from tslrec.stages.p5_llm import stage as p5_llm
from tslrec.stages.pod import stage as pod
from tslrec.system.errors import UserError
from tslrec.system.exits import run_program
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

NUM_ITEMS, NUM_USERS = 30, 37
STAGES: dict[str, Any] = {"ranker": ranker, "p5": p5, "p5_llm": p5_llm, "pod": pod}
Outcome = tuple[dict[str, float], dict[str, Tensor]]
"""The metrics of a stage, and every array that it wrote, by file and name."""


def market() -> Interactions:
    """An odd number of users, so that two processes never have as many each."""
    draw = np.random.default_rng(0)
    return make_interactions(
        [draw.integers(1, NUM_ITEMS + 1, draw.integers(5, 10)).tolist() for _ in range(NUM_USERS)], NUM_ITEMS
    )


def config_of(folder: Path, processes: int, learning_rate: float = 1e-3) -> Config:
    """Batches of 15 and of 7, which two processes cannot halve."""
    lora = LoraConfig(4, 8, 0.0, ["q_proj", "v_proj"])
    sizes: dict[str, Any] = {"batch_size": 15, "max_epochs": 2, "eval_batch_size": 7, "learning_rate": learning_rate}
    strategy = "ddp" if processes > 1 else "auto"
    sasrec = {"name": "sasrec", "_target_": "tslrec.models.backbones.sasrec.SASRec", "hidden_size": 8}
    return Config(
        method=MethodConfig("rivals", []),
        data=DataConfig("market"),
        model=sasrec,
        fusion={},
        llm=LLMConfig(name="tiny", random={}),
        training=TrainingConfig(max_len=5, max_epochs=2, batch_size=32, learning_rate=1e-2),
        llamarec=LlamaRecConfig(
            candidates=6, history=4, title_tokens=8, steps_per_epoch=None, warmup_steps=2, lora=lora, **sizes
        ),
        item_index=ItemIndexConfig(num_clusters=3, leaf_size=6),
        p5=P5Config(prompts=1, max_history=3, lora=lora, tokens_at_once=900, **sizes),
        pod=PODConfig(candidates=6, history=4, num_beams=12, **sizes),
        t5=EncoderDecoderConfig(
            d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2, dropout=0.0
        ),
        trainer=TrainerConfig("cpu", devices=processes, strategy=strategy, llm_strategy=strategy),
        preset="tests",
        cache=str(folder),
    )


def run_stage(stage: Any, folder: Path, name: str, config: Config, inputs: dict[str, Path]) -> dict[str, Any]:
    lightning.seed_everything(3, verbose=False)
    output = folder / name
    output.mkdir(parents=True, exist_ok=True)
    checkpoints, meter = Checkpoints(folder / f"{name}.checkpoints"), Meter()
    trainers = StageTrainers(config.trainer, name, output, checkpoints=checkpoints, meter=meter)
    metrics: dict[str, Any] = stage.run(StageContext(config, market(), 3, output, inputs, trainers, checkpoints, meter))
    return metrics


def prepare(folder: Path) -> None:
    """Writes what the stages read: a backbone, titles and an item index."""
    inputs, config = inputs_of(folder), config_of(folder, 1)
    run_stage(backbone, folder / "inputs", "backbone", config, {})
    run_stage(item_index, folder / "inputs", "item_index", config, {})
    inputs["titles"].mkdir()
    raw_ids = market().ids.items
    write_own_titles(["", *(f"Thing {item}" for item in range(1, len(raw_ids)))], raw_ids, inputs["titles"])


def inputs_of(folder: Path) -> dict[str, Path]:
    """The folders of what the stages read."""
    return {name: folder / "inputs" / name for name in ("backbone", "titles", "item_index")}


def outcome(folder: Path, name: str, processes: int) -> Outcome:
    """Runs a stage by so many processes."""
    own = folder / ("one" if processes == 1 else "two")
    metrics = run_stage(STAGES[name], own, name, config_of(folder, processes), inputs_of(folder))
    # The first process writes once all have gathered the ranks.
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    files = sorted((own / name).rglob("*.safetensors"))
    arrays = {f"{file.name}:{key}": value for file in files for key, value in load_file(file).items()}
    return {key: float(value) for key, value in metrics.items()}, arrays


def diverge(folder: Path, name: str, processes: int) -> None:
    """A training whose loss is soon not finite ends in an error for a person, in every process."""
    config = config_of(folder, processes, learning_rate=1e30)
    with pytest.raises(UserError, match="is not finite at step") as stopped:
        run_stage(STAGES[name], folder / f"diverging-{processes}", name, config, inputs_of(folder))
    assert "\n" not in str(stopped.value)
    assert len(str(stopped.value)) <= 300


def main(folder: Path) -> None:
    """Runs every stage as one process of two; rank 0 writes the outcomes."""
    for name in STAGES:
        numbers, found = outcome(folder, name, 2)
        diverge(folder, name, 2)
        if torch.distributed.get_rank() == 0:
            (folder / f"{name}.json").write_text(json.dumps(numbers))
            save_file(found, folder / f"{name}.safetensors")


if __name__ == "__main__":
    run_program(lambda: main(Path(sys.argv[1])))
