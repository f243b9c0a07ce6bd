"""What determines a result: the recipe of each stage, and the seeds and keys that follow from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tslrec.config import Config
from tslrec.pipeline.artifacts import Recipe
from tslrec.stages.declaration import Stage
from tslrec.stages.method_stages import inputs_of
from tslrec.stages.registry import DATA_VERSION, TITLES_VERSION
from tslrec.system.manifests import KEY_LENGTH
from tslrec.system.targets import target_settings

EARLIER = "earlier"
"""Among a recipe's inputs the earlier result of the same stage, which it continues."""


def stage_seed(seed: int, stage: str) -> int:
    """The seed of a stage: a hash of the run's seed and the stage's name, so neighbouring seeds give unrelated ones."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{stage}".encode()).digest()[:4]) % 2**31


def data_recipe(config: Config, raw_sha256: str | None) -> Recipe:
    """The recipe of the ingested data set.

    Args:
        config: the run's.
        raw_sha256: hex digest of the raw file; None for generated data.
    """
    data = config.data
    return Recipe(
        stage="data",
        label=data.name,
        config={
            "name": data.name,
            "reader": target_settings("data.reader", data.reader),
            "sha256": raw_sha256,
            "min_user_interactions": data.min_user_interactions,
            "min_item_interactions": data.min_item_interactions,
        },
        version=DATA_VERSION,
    )


def titles_recipe(data: Recipe, sha256: str) -> Recipe:
    """The recipe of the titles of a data set's items.

    Args:
        data: the data set's.
        sha256: hex digest of the file of titles; of data with titles of their own, of these texts.
    """
    return Recipe(
        stage="titles", label=data.label, config={"sha256": sha256}, inputs={"data": data.key}, version=TITLES_VERSION
    )


def config_for(stage: Stage, config: Config, source: Config) -> Config:
    """The configuration that a stage runs with.

    The stages between the first backbone and the fusion read the source model's embeddings, and show as much of a
    history as the source model was trained on. So all target models of one source model share one SFT. Everything else
    is the run's.

    Args:
        stage: the stage.
        config: the run's.
        source: the run of stage 1's backbone; `config` itself where `source_model` names no other backbone.
    """
    if stage.settings_of == "source":
        return source
    return config if stage.settings_of == "target" else middle_stage_config(config, source)


def middle_stage_config(config: Config, source: Config) -> Config:
    """The run's configuration with the model and the training of the source."""
    return config if source is config else replace(config, model=source.model, training=source.training)


def stage_recipe(
    config: Config,
    stage: Stage,
    *,
    keys: Mapping[str, str],
    llm_identity: Mapping[str, Any] | None,
    earlier: str | None = None,
    keeps_items: bool = False,
) -> Recipe:
    """The recipe of a stage.

    Args:
        config: what the stage runs with (see `config_for`).
        stage: the stage.
        keys: the keys of all earlier results, by stage, of `data`, where they are read of `titles`, and of the members'
            recommenders, by `member_name`.
        llm_identity: tells the weights of one language model from those of another.
        earlier: the key of the earlier result that it continues; None: it starts anew.
        keeps_items: see `tslrec.stages.context.Earlier`.
    """
    inputs = {name: keys[name] for name in inputs_of(config, stage)}
    if earlier is not None:
        inputs[EARLIER] = earlier
    kept = {"keeps_items": True} if keeps_items else {}
    weights = {"weights": llm_identity} if stage.runs_llm else {}
    return Recipe(
        stage=stage.name,
        label=f"{config.data.name}-{stage.label(config)}",
        config={**stage.settings(config), **weights, **kept},
        inputs=inputs,
        seed=stage_seed(config.seed, stage.name) if stage.seeded else None,
        version=stage.version,
    )


def run_key(keys: Iterable[str]) -> str:
    """A short hash of the keys of all stages' results, which tells runs with different settings apart."""
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()[:KEY_LENGTH]
