"""A catalogue with what the stages before the augmentation leave; also a script: `python catalogue.py FOLDER` augments
it as one process of a job, once two of them are there.
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

from conftest import make_interactions
from tslrec import ranks
from tslrec.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.checkpoints import Checkpoints
from tslrec.config import Config, DataConfig, LLMConfig, LoraConfig, MethodConfig, SFTConfig, TrainerConfig
from tslrec.llm.adapter_files import new_model, read_item_embeddings, save_trained
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.source import resolve
from tslrec.measuring import Meter
from tslrec.stages import augment
from tslrec.stages.context import StageContext
from tslrec.trainers import StageTrainers

NUM_CLUSTERS, SIZE = 4, 6
LLM = LLMConfig(name="tiny", random={}, lora=LoraConfig(rank=4, alpha=8))
MANY_ITEMS = 401
SHARD_SIZE = 8


def embeddings(num_items: int) -> np.ndarray:
    """Vectors of items, the first ones the same however many there are."""
    rows = [np.random.default_rng(item).normal(size=SIZE) for item in range(num_items + 1)]
    return np.array([np.zeros(SIZE), *rows[1:]], dtype=np.float32)


def prepare(folder: Path, num_items: int) -> PreferenceLLM:
    """A model whose trained parts are not at their start, saved into `sft`, its item embeddings into `backbone`."""
    for name in ("sft", "backbone", "preferences", "augment"):
        (folder / name).mkdir(parents=True)
    save_file({"item_embeddings": embeddings(num_items)}, folder / "backbone" / "item_embeddings.safetensors")
    clusters_I = np.array([-1, *(item % NUM_CLUSTERS for item in range(num_items))])
    centroids_KD = np.eye(NUM_CLUSTERS, SIZE, dtype=np.float32)
    save_file({"clusters": clusters_I, "centroids": centroids_KD}, folder / "preferences" / "preferences.safetensors")
    source = resolve(LLM, folder)
    model = new_model(LLM, source, read_item_embeddings(folder / "backbone"), NUM_CLUSTERS)
    torch.manual_seed(1)
    for parameter in model.trainable_parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    save_trained(model, folder / "sft", source)
    return model


def context_of(
    folder: Path, num_items: int, output: Path | None = None, checkpoints: Path | None = None, **sft: Any
) -> StageContext:
    """The stage's context over what `prepare` wrote; `sft` are numbers of the section."""
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
    output = output or folder / "augment"
    make_trainer = StageTrainers(config.trainer, "augment", output)
    kept = Checkpoints(checkpoints or folder / "augment.checkpoints", print)
    return StageContext(config, interactions, 0, output, inputs, make_trainer, kept, Meter())


def produce(folder: Path) -> Artifact:
    """The store of many items as one process of a job makes it, in many small shards."""
    recipe = Recipe("augment", "many", {})
    store = ArtifactStore(folder / "artifacts", ranks.join_job(), ranks.is_first())
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
    (ready / str(ranks.is_first())).touch()
    while len(list(ready.iterdir())) < 2:
        time.sleep(0.01)
    produce(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
