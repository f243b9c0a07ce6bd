"""What the stages before the augmentation leave, generated: the inputs of `knowledge.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tslrec.config import Config
from tslrec.pipeline.artifacts import Artifact, ArtifactStore
from tslrec.pipeline.check import check
from tslrec.pipeline.composition import compose_overrides
from tslrec.pipeline.recipes import stage_recipe
from tslrec.stages.registry import find_stage
from tslrec.system.meter import Meter

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
    from tslrec.llm.adapter import save_trained
    from tslrec.llm.weights_source import resolve
    from tslrec.pipeline.run import ingest_data
    from tslrec.stages.sft.loading import new_model

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
    declared = find_stage(stage)
    assert declared is not None
    recipe = stage_recipe(config, declared, keys=keys, llm_identity=identity)
    return store.produce(recipe, compute, Meter().facts)
