"""What the stages before the augmentation leave, generated: the inputs of `knowledge.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tslrec.artifacts import Artifact, ArtifactStore
from tslrec.check import check
from tslrec.composition import compose_overrides
from tslrec.config import Config
from tslrec.measuring import Meter
from tslrec.recipes import stage_recipe

STAGES = ["backbone", "preferences", "sft", "augment"]
INTERACTIONS_PER_ITEM, ITEMS_PER_USER = 2, 2


def configuration(folder: Path) -> Config:
    """The run that a person would start."""
    return compose_overrides(
        [
            "method=tslrec",
            f"method.stages=[{','.join(STAGES)}]",
            "data=parquet",
            f"data.path={folder / 'market.parquet'}",
            "llm=tiny",
            "preset=small",
            f"cache={folder / 'cache'}",
            f"artifacts={folder / 'artifacts'}",
            "trainer.devices=2",
            "trainer.llm_strategy=ddp",
        ]
    )


def prepare(folder: Path, *, num_items: int, seed: int) -> None:
    """Generates the data set and the artifacts of the stages before the augmentation."""
    import numpy as np
    import torch
    from safetensors.numpy import save_file

    from scale import market
    from tslrec.llm.adapter_files import new_model, save_trained
    from tslrec.llm.source import resolve
    from tslrec.pipeline import ingest_data

    num_interactions = INTERACTIONS_PER_ITEM * num_items
    market(
        folder / "market.parquet",
        num_interactions=num_interactions,
        num_users=num_items // ITEMS_PER_USER,
        num_items=num_items,
        seed=seed,
    )
    config = configuration(folder)
    check(config)
    store = ArtifactStore(folder / "artifacts")
    data, interactions = ingest_data(config, store)
    draw = np.random.default_rng(seed)
    size, num_clusters = config.model["hidden_size"], config.preferences.num_clusters
    source = resolve(config.llm, Path(config.cache))

    def backbone(folder: Path) -> dict[str, Any]:
        table_ID = draw.standard_normal((interactions.num_items + 1, size), dtype=np.float32)
        table_ID[0] = 0
        save_file({"item_embeddings": table_ID}, folder / "item_embeddings.safetensors")
        return {}

    def preferences(folder: Path) -> dict[str, Any]:
        clusters_I = draw.integers(num_clusters, size=interactions.num_items + 1)
        clusters_I[0] = -1
        centroids_KD = draw.standard_normal((num_clusters, size), dtype=np.float32)
        save_file({"clusters": clusters_I, "centroids": centroids_KD}, folder / "preferences.safetensors")
        return {}

    def sft(folder: Path) -> dict[str, Any]:
        torch.manual_seed(seed)
        model = new_model(config.llm, source, torch.zeros(1, size), num_clusters)
        for parameter in model.trainable_parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        save_trained(model, folder, source)
        return {}

    keys = {"data": data.key}
    for stage, compute in (("backbone", backbone), ("preferences", preferences), ("sft", sft)):
        keys[stage] = produce(config, store, stage, keys, source.identity, compute).key


def produce(
    config: Config,
    store: ArtifactStore,
    stage: str,
    keys: dict[str, str],
    identity: dict[str, Any],
    compute: Callable[[Path], dict[str, Any]],
) -> Artifact:
    """Publishes generated files as a stage's result."""
    from importlib import import_module

    version = import_module(f"tslrec.stages.{stage}").VERSION
    recipe = stage_recipe(config, stage, version=version, keys=keys, llm_identity=identity)
    return store.produce(recipe, compute, Meter().facts)
