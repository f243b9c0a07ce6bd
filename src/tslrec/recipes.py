"""What determines the result of each stage: the only place that says which settings a stage reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tslrec.artifacts import KEY_LENGTH, Recipe
from tslrec.binding import target_settings
from tslrec.check import fusion_inputs, maker_of
from tslrec.config import Config, non_defaults
from tslrec.llm.prompt import INSTRUCTION, RESPONSE
from tslrec.llm.shape import shape_of

DATA_VERSION = 1

INPUTS: Mapping[str, tuple[str, ...]] = {
    "backbone": ("data",),
    "preferences": ("data", "backbone"),
    "sft": ("data", "backbone", "preferences"),
    "augment": ("data", "backbone", "preferences", "sft"),
    "own_embeddings": ("data", "backbone"),
    "random_projection": ("data", "backbone"),
    "untuned_llm": ("data", "backbone"),
    "e4srec": ("data", "backbone"),
}
"""The artifacts that a stage reads; a fusion reads the data and what its parameters ask for."""


LLM_UNREAD = frozenset({"shape", "gradient_checkpointing"})
"""Settings of a language model on which no result depends."""


def stage_seed(seed: int, stage: str) -> int:
    """A stage's own seed: stable, and unrelated between stages and between neighbouring run seeds."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{stage}".encode()).digest()[:4]) % 2**31


def data_recipe(config: Config, raw_sha256: str | None) -> Recipe:
    """The data set after ingestion: the raw bytes (none where the data are generated) and how they are read."""
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


def between(config: Config, source: Config) -> Config:
    """What the stages between the first backbone and the fusion run by.

    They speak of the source model: its embeddings are what goes in, and how much of a history is shown is what it was
    trained on, so that every target model shares one SFT. The language model and K are the run's.
    """
    return config if source is config else replace(config, model=source.model, training=source.training)


def stage_inputs(config: Config, stage: str) -> tuple[str, ...]:
    """The stages whose artifacts `stage` reads."""
    if stage != "fusion":
        return INPUTS[stage]
    return ("data", *sorted({maker_of(config, name) for name in fusion_inputs(config.fusion)}))


def stage_recipe(
    config: Config,
    stage: str,
    *,
    version: int,
    keys: Mapping[str, str],
    llm_identity: Mapping[str, Any] | None,
) -> Recipe:
    """The recipe of a stage.

    Args:
        config: of the run; for the backbone of another source model, that model's.
        stage: its name.
        version: of the stage's code.
        keys: keys of all artifacts so far, by stage.
        llm_identity: what tells one set of language-model weights from another.
    """
    settings, label = stage_settings(config, stage, llm_identity)
    return Recipe(
        stage=stage,
        label=f"{config.data.name}-{label}",
        config=settings,
        inputs={name: keys[name] for name in stage_inputs(config, stage)},
        seed=stage_seed(config.seed, stage),
        version=version,
    )


def stage_settings(config: Config, stage: str, llm_identity: Mapping[str, Any] | None) -> tuple[dict[str, Any], str]:
    """The part of the configuration that a stage's result depends on, and a label for its folder."""
    trained = {"training": non_defaults(config.training), "precision": config.trainer.precision}
    model = str(config.model["name"])
    llm = {name: value for name, value in non_defaults(config.llm).items() if name not in LLM_UNREAD}
    language = {"llm": llm, "weights": llm_identity, "precision": config.trainer.llm_precision}
    unread = {"augment_batch_size", "augment_shard_size"}
    if config.sft.held_back == 0:
        unread |= {"patience", "eval_batch_size"}
    sft = {name: value for name, value in non_defaults(config.sft).items() if name not in unread}
    prompt = {"prompt": [INSTRUCTION, RESPONSE]}
    knowledge = {"knowledge": non_defaults(config.knowledge)}
    match stage:
        case "backbone":
            return {"model": target_settings("model", config.model), **trained}, model
        case "preferences":
            return {"preferences": non_defaults(config.preferences)}, f"{model}-k{config.preferences.num_clusters}"
        case "sft":
            window = {"max_len": config.training.max_len}
            return {**language, **prompt, **window, "sft": sft}, f"{model}-{config.llm.name}"
        case "augment":
            return {**language, **prompt, **knowledge}, f"{model}-{config.llm.name}"
        case "own_embeddings":
            return {}, model
        case "random_projection":
            return {"size": shape_of(config.llm).hidden_size}, model
        case "untuned_llm":
            without_lora = {**language, "llm": {name: value for name, value in llm.items() if name != "lora"}}
            categories = {"num_clusters": config.preferences.num_clusters}
            return {**without_lora, **prompt, **knowledge, **categories}, f"{model}-{config.llm.name}"
        case "e4srec":
            # Its LoRA is its own.
            its_llm = {name: value for name, value in llm.items() if name != "lora"}
            chosen = {"max_len": config.training.max_len, "selection": config.training.selection}
            return {
                **language,
                "llm": its_llm,
                **chosen,
                "e4srec": non_defaults(config.e4srec),
            }, f"{model}-{config.llm.name}"
        case "fusion":
            return {
                "model": target_settings("model", config.model),
                "fusion": target_settings("fusion", config.fusion),
                **trained,
            }, f"{model}-{config.fusion['name']}"
        case _:
            raise ValueError(f"no stage '{stage}'")


def run_key(keys: Iterable[str]) -> str:
    """Tells runs with other settings apart, by the keys of their stages' results."""
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()[:KEY_LENGTH]


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
