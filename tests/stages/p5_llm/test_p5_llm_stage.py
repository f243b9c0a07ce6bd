"""P5's decoder-only form as a stage: it learns, a killed training goes on, and its recommender lists as its test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
from safetensors.numpy import load_file

from support.interactions import make_interactions
from support.model_folders import save_model
from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.serving.engine import Batch
from tslrec.serving.list_engine import ListEngine
from tslrec.serving.verification import verify_ranks
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.settings.rivals import ItemIndexConfig, P5Config
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.context import StageContext
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.item_index import stage as item_index
from tslrec.stages.p5_llm import stage as p5_llm
from tslrec.stages.restored import ListGenerator, restore
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

NUM_ITEMS, NUM_USERS = 30, 60
NUMBERS: dict[str, Any] = {"batch_size": 16, "max_epochs": 2, "prompts": 1, "eval_batch_size": 7, "max_history": 3}
WRITTEN = {"adapter", "heads.safetensors", "ranks.safetensors", "log"}


def market() -> Interactions:
    """Users walk around all items, so that the last item tells the next one."""
    return make_interactions(
        [[1 + (7 * start + i) % NUM_ITEMS for i in range(4 + start % 6)] for start in range(NUM_USERS)], NUM_ITEMS
    )


def config_of(folder: Path, kind: str = "collaborative", **changes: Any) -> Config:
    return Config(
        method=MethodConfig("p5_llm", ["item_index", "p5_llm"]),
        data=DataConfig("toys"),
        model={},
        fusion={},
        llm=LLMConfig(name="tiny", random={}),
        item_index=ItemIndexConfig(kind, num_clusters=3, leaf_size=6),
        p5=P5Config(**{**NUMBERS, **changes}),
        trainer=TrainerConfig("cpu", checkpoint_seconds=0),
        preset="tests",
        cache=str(folder),
    )


def run_stage(
    stage: Any, folder: Path, name: str, config: Config, inputs: dict[str, Path], *callbacks: lightning.Callback
) -> dict[str, Any]:
    lightning.seed_everything(3, verbose=False)
    output = folder / name
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    checkpoints = Checkpoints(folder / f"{name}.checkpoints")
    meter = Meter()
    trainers = StageTrainers(config.trainer, name, output, checkpoints=checkpoints, meter=meter)

    def make_trainer(**settings: Any) -> lightning.Trainer:
        return trainers(**{**settings, "callbacks": [*settings["callbacks"], *callbacks]})

    metrics: dict[str, Any] = stage.run(
        StageContext(config, market(), 3, output, inputs, make_trainer, checkpoints, meter)
    )
    return metrics


def train(folder: Path, name: str, config: Config, *callbacks: lightning.Callback) -> dict[str, Any]:
    """Runs both stages; the metrics of the second."""
    run_stage(item_index, folder, "item_index", config, {})
    return run_stage(p5_llm, folder, name, config, {"item_index": folder / "item_index"}, *callbacks)


def engine_of(folder: Path, name: str, config: Config) -> ListEngine:
    sources = Sources(config, market(), {"item_index": folder / "item_index"})
    restored = restore("p5_llm", sources, folder / name)
    assert isinstance(restored, ListGenerator)
    return ListEngine(restored)


def trained_numbers(folder: Path) -> dict[str, Any]:
    """All arrays that a training writes."""
    files = ("adapter/adapter_model.safetensors", "heads.safetensors", "ranks.safetensors")
    return {f"{file}:{name}": value for file in files for name, value in load_file(folder / file).items()}


class KilledError(Exception):
    pass


class Kill(lightning.Callback):
    """Ends a training before a step as SIGKILL would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise KilledError


@pytest.mark.slow
def test_it_learns_what_follows_what(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {
        "max_history": 1,
        "tasks": ["sequential"],
        "prompts": 4,
        "max_epochs": 8,
        "learning_rate": 5e-3,
        "lora": LoraConfig(16, 32, 0.0, ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]),
    }
    config = config_of(tmp_path, **numbers)
    # Frozen weights as small as those of the tiny model let no text be likely.
    folder = save_model(tmp_path / "model", "llama", hidden_size=32, num_hidden_layers=2, initializer_range=0.3)
    config.llm = LLMConfig(name="folder", path=str(folder))
    config.trainer.checkpoint_seconds = 300
    config.training.validation_users = 10
    metrics = train(tmp_path, "p5_llm", config)
    assert (metrics["validation/users"], metrics["test/users"], metrics["epochs"]) == (10, NUM_USERS, 8)
    # By chance, a fifth of the lists' first halves would hold their target.
    assert metrics["test/masked/HR@5"] > 0.6


@pytest.mark.parametrize("step", [3, 11])
def test_a_killed_training_goes_on_to_the_same_bits(tmp_path: Path, step: int) -> None:
    config = config_of(tmp_path, batch_size=64, eval_batch_size=60, tokens_at_once=1000)
    whole = train(tmp_path, "whole", config)
    with pytest.raises(KilledError):
        train(tmp_path, "killed", config, Kill(step))
    assert train(tmp_path, "killed", config) == whole
    one, other = trained_numbers(tmp_path / "whole"), trained_numbers(tmp_path / "killed")
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("kind", ["collaborative", "sequential", "random"])
@pytest.mark.parametrize("packs", [True, False])
def test_the_recommender_lists_what_the_test_listed(tmp_path: Path, kind: str, packs: bool) -> None:
    config = config_of(tmp_path, kind, max_epochs=1, beams=12)
    config.llm.shared_prefix = packs
    metrics = train(tmp_path, "p5_llm", config)
    assert {path.name for path in (tmp_path / "p5_llm").iterdir()} == WRITTEN
    assert metrics["test/list_length"] == 10
    heads = load_file(tmp_path / "p5_llm" / "heads.safetensors")
    # Codes of numbers need no new tokens.
    assert list(heads) == (["new_tokens.weight"] if kind == "collaborative" else [])
    assert metrics["vocabulary"] == 256 + sum(map(len, heads.values()))
    engine = engine_of(tmp_path, "p5_llm", config)
    for each in verify_ranks(engine, market(), tmp_path / "p5_llm", batch_size=14):
        assert each.equal == each.users == NUM_USERS
    batch = Batch(*(np.array(each) for each in ([[3, 4, 0], [9, 8, 7]], [2, 3], [0, 0, 1, 1, 1], [3, 4, 9, 8, 7])))
    listed, scores = engine.best_items(batch, 10, None)
    assert all(len(set(row) - set(seen)) == 10 for row, seen in zip(listed.tolist(), ([3, 4], [9, 8, 7]), strict=True))
    assert (np.diff(scores, axis=1) <= 0).all()
