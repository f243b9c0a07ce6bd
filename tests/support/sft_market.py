"""A small generated market whose preferences the SFT can learn, and the context of the SFT stage on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from safetensors.numpy import save_file

from support.interactions import make_interactions
from tslrec.config import Config
from tslrec.data.batching import split_users
from tslrec.data.interactions import Interactions
from tslrec.data.item_titles import write_texts
from tslrec.evaluation.preference_fit import squared_error
from tslrec.knowledge.preferences import user_preferences
from tslrec.llm.weights_source import resolve
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.settings.preference_sft import SFTConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import read_item_embeddings
from tslrec.stages.sft.data import training_histories
from tslrec.stages.sft.items import items_of
from tslrec.stages.sft.loading import load_trained
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints

NUM_CLUSTERS, PER_CLUSTER = 4, 5
CLUSTERS_I = np.array([-1, *np.repeat(np.arange(NUM_CLUSTERS), PER_CLUSTER)])


def market(num_users: int = 96) -> Interactions:
    """Users with 3 to 8 interactions, most of them with items of one category."""
    draw = np.random.default_rng(0)
    sequences = []
    for user in range(num_users):
        length = int(draw.integers(3, 9))
        category = np.where(draw.random(length) < 0.8, user % NUM_CLUSTERS, draw.integers(0, NUM_CLUSTERS, length))
        sequences.append((1 + category * PER_CLUSTER + draw.integers(0, PER_CLUSTER, length)).tolist())
    return make_interactions(sequences, num_items=NUM_CLUSTERS * PER_CLUSTER)


def sft_context(
    parent: Path,
    make_trainer: Callable[..., lightning.Trainer],
    folder: str = "sft",
    llm: LLMConfig | None = None,
    **changes: Any,
) -> StageContext:
    """The context of the SFT stage with its inputs written below `parent`; `changes` are fields of `SFTConfig`."""
    interactions = market()
    draw = np.random.default_rng(1)
    centres = draw.normal(size=(NUM_CLUSTERS, 6))
    table_ID = np.zeros((interactions.num_items + 1, 6), dtype=np.float32)
    table_ID[1:] = centres[CLUSTERS_I[1:]] + 0.1 * draw.normal(size=(interactions.num_items, 6))
    for name in ("backbone", "preferences", folder):
        (parent / name).mkdir(exist_ok=True)
    save_file({"item_embeddings": table_ID}, parent / "backbone" / "item_embeddings.safetensors")
    preferences_UK = user_preferences(interactions, CLUSTERS_I, NUM_CLUSTERS)
    save_file(
        {"clusters": CLUSTERS_I, "preferences": preferences_UK},
        parent / "preferences" / "preferences.safetensors",
    )
    config = Config(
        method=MethodConfig("tslrec", ["sft"]),
        data=DataConfig("market", "market", {}),
        model={"name": "sasrec"},
        fusion={},
        llm=llm or LLMConfig(name="tiny", random={}, lora=LoraConfig(rank=4, alpha=8)),
        sft=replace(SFTConfig(batch_size=8, learning_rate=1e-2, max_epochs=4), **changes),
        trainer=TrainerConfig("cpu"),
        preset="tests",
        cache=str(parent),
    )
    lightning.seed_everything(3, verbose=False)
    inputs = {name: parent / name for name in ("backbone", "preferences")}
    if config.sft.reads_titles:
        inputs["titles"] = parent / "titles"
        inputs["titles"].mkdir(exist_ok=True)
        texts = [f"{cluster}-{item} piece" for item, cluster in enumerate(CLUSTERS_I)][1:]
        write_texts(texts, [False] * len(texts), interactions.ids.items, inputs["titles"])
    checkpoints = Checkpoints(parent / f"{folder}.checkpoints")
    return StageContext(config, interactions, 3, parent / folder, inputs, make_trainer, checkpoints, Meter())


def held_back_error(context: StageContext) -> float:
    """The mean squared error of the saved model in the stage's folder on the held-back users."""
    config = context.config
    source = resolve(config.llm, Path(config.cache))
    items = items_of(context, source)
    model = load_trained(context.folder, config.llm, source, read_item_embeddings(context.inputs["backbone"]), items)
    _, held_back = split_users(context.interactions.num_users, config.sft.held_back, context.seed)
    histories = training_histories(context.interactions, config.training.max_len)
    targets_UK = user_preferences(context.interactions, CLUSTERS_I, NUM_CLUSTERS)
    with torch.no_grad():
        logits_BK = model(model.packer([histories[user] for user in held_back])).logits_BK
    return float(squared_error(logits_BK, torch.from_numpy(targets_UK[held_back])).mean())
