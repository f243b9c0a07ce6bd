"""A small catalogue with the results of the stages before augmentation.

Also a script: `python catalogue.py FOLDER` augments the catalogue as one process of a job of two. Both processes wait
for each other before they begin, so that they share the work.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from support.interactions import make_interactions
from tslrec.config import Config
from tslrec.data.item_titles import read_item_titles, write_texts
from tslrec.llm.adapter import save_trained
from tslrec.llm.item_input import EMBEDDING, EMBEDDINGS
from tslrec.llm.weights_source import resolve
from tslrec.pipeline.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.settings.preference_sft import SFTConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages import augment
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import read_item_embeddings
from tslrec.stages.sft.items import encode_items
from tslrec.stages.sft.loading import new_model
from tslrec.stages.sft.model import PreferenceLLM
from tslrec.system import processes
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

NUM_CLUSTERS, SIZE = 4, 6
TITLE_TOKENS = 5
LLM = LLMConfig(name="tiny", random={}, lora=LoraConfig(rank=4, alpha=8))
MANY_ITEMS = 401
SHARD_SIZE = 8


def embeddings(num_items: int) -> np.ndarray:
    """Random item embeddings `[I + 1, SIZE]`; those of the first items do not depend on `num_items`."""
    rows = [np.random.default_rng(item).normal(size=SIZE) for item in range(num_items + 1)]
    return np.array([np.zeros(SIZE), *rows[1:]], dtype=np.float32)


def title(item: int) -> str:
    """An item's title, which does not depend on the number of items."""
    return f"{item * item}{'abc'[item % 3]}, a piece"


def raw_ids(num_items: int) -> list[str]:
    """Of items 0..I."""
    return ["", *(f"i{item}" for item in range(1, num_items + 1))]


def prepare(folder: Path, num_items: int, item_input: str = EMBEDDING) -> PreferenceLLM:
    """Writes results of the stages `backbone`, `preferences` and `sft`, and titles; returns the model that was saved.

    Its trained parts are not at their initial values.
    """
    for name in ("sft", "backbone", "preferences", "augment"):
        (folder / name).mkdir(parents=True)
    save_file({"item_embeddings": embeddings(num_items)}, folder / "backbone" / "item_embeddings.safetensors")
    clusters_I = np.array([-1, *(item % NUM_CLUSTERS for item in range(num_items))])
    centroids_KD = np.eye(NUM_CLUSTERS, SIZE, dtype=np.float32)
    save_file({"clusters": clusters_I, "centroids": centroids_KD}, folder / "preferences" / "preferences.safetensors")
    source = resolve(LLM, folder)
    write_texts([title(item) for item in range(1, num_items + 1)], [False] * num_items, raw_ids(num_items), folder)
    items = EMBEDDINGS
    if item_input != EMBEDDING:
        items = encode_items(source, read_item_titles(folder).texts, item_input=item_input, title_tokens=TITLE_TOKENS)
    model = new_model(LLM, source, read_item_embeddings(folder / "backbone"), NUM_CLUSTERS, items)
    torch.manual_seed(1)
    for parameter in model.trainable_parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    save_trained(model, folder / "sft", source)
    return model


def context_of(
    folder: Path, num_items: int, output: Path | None = None, checkpoints: Path | None = None, **sft: Any
) -> StageContext:
    """The context of the augmentation stage with the results of `prepare`; `sft` are fields of `SFTConfig`."""
    config = Config(
        method=MethodConfig("tslrec", ["augment"]),
        data=DataConfig("market", "market", {}),
        model={"name": "sasrec"},
        fusion={},
        llm=LLM,
        sft=replace(SFTConfig(), **sft),
        trainer=TrainerConfig("cpu"),
        preset="tests",
        cache=str(folder),
    )
    interactions = make_interactions([list(range(1, num_items + 1))])
    inputs = {name: folder / name for name in ("backbone", "preferences", "sft")}
    if config.sft.reads_titles:
        inputs["titles"] = folder
    output = output or folder / "augment"
    kept, meter = Checkpoints(checkpoints or folder / "augment.checkpoints"), Meter()
    make_trainer = StageTrainers(config.trainer, "augment", output, checkpoints=kept, meter=meter)
    return StageContext(config, interactions, 0, output, inputs, make_trainer, kept, meter)


def produce(folder: Path) -> Artifact:
    """Computes the knowledge store of `MANY_ITEMS` items in many small shards, as one process of a job."""
    recipe = Recipe("augment", "many", {})
    store = ArtifactStore(folder / "artifacts", processes.join_job(), processes.is_rank_zero())
    meter = Meter()

    def compute(output: Path) -> dict[str, object]:
        context = context_of(
            folder,
            MANY_ITEMS,
            output,
            store.checkpoints(recipe),
            augment_shard_size=SHARD_SIZE,
            augment_batch_size=1,
        )
        return augment.run(context)

    return store.produce(recipe, compute, meter.facts, together=True)


def main(folder: Path) -> None:
    ready = folder / "ready"
    ready.mkdir(exist_ok=True)
    (ready / str(processes.is_rank_zero())).touch()
    while len(list(ready.iterdir())) < 2:
        time.sleep(0.01)
    produce(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
