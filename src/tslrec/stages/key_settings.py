"""What determines the result of each stage: of the configuration, the parts that its key holds."""

from __future__ import annotations

from typing import Any

from tslrec.config import Config, non_defaults
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.stages.sft.prompt import INSTRUCTION, RESPONSE
from tslrec.system.targets import target_settings

ITEM_INPUT = frozenset({"item_input", "title_tokens"})
"""The settings of the section `sft` that say what the language model reads of an item."""


def metric_settings(config: Config) -> dict[str, Any]:
    """Of the stages that evaluate: the metrics, in no particular order, where they are others than the default."""
    chosen = set(config.metrics)
    return {} if chosen == set(DEFAULT_METRICS) else {"metrics": sorted(chosen)}


def product_settings(config: Config) -> dict[str, Any]:
    """Of the stages that train on a GPU: how float32 products are rounded, where it is another way than the default.

    CPUs ignore the setting, so that it is no part of what determines their results.
    """
    chosen = config.trainer.matmul_precision
    return {} if chosen == "highest" or not config.trainer.on_gpu else {"matmul_precision": chosen}


def recommender_settings(config: Config) -> dict[str, Any]:
    """What determines the result of a stage that trains a recommender."""
    return {
        "model": target_settings("model", config.model),
        "training": non_defaults(config.training),
        "precision": config.trainer.precision,
        **product_settings(config),
        **metric_settings(config),
    }


def fusion_settings(config: Config) -> dict[str, Any]:
    """What determines the fusion stage's result."""
    settings = {**recommender_settings(config), "fusion": target_settings("fusion", config.fusion)}
    if "soft_targets" in config.method.stages:
        chosen = non_defaults(config.soft_targets)
        settings["soft_targets"] = {name: value for name, value in chosen.items() if name == "weight"}
    return settings


def soft_target_settings(config: Config) -> dict[str, Any]:
    """What determines the soft targets, beside the teacher; what they count for is the fusion's."""
    chosen = {name: value for name, value in non_defaults(config.soft_targets).items() if name != "weight"}
    return {"soft_targets": chosen}


def llm_settings(config: Config, *, own_lora: bool = False) -> dict[str, Any]:
    """What determines the results of all stages that run the language model.

    Args:
        config: what the stage runs with.
        own_lora: whether the stage does not use the LoRA of the section `llm`.
    """
    unread = {"shape", "gradient_checkpointing"} | ({"lora"} if own_lora else set())
    llm = {name: value for name, value in non_defaults(config.llm).items() if name not in unread}
    return {"llm": llm, "precision": config.trainer.llm_precision}


def sft_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the preference SFT."""
    unread = {"augment_batch_size", "augment_shard_size"}
    if config.sft.held_back == 0:
        unread |= {"patience", "eval_batch_size"}
    if not config.sft.reads_titles:
        unread.add("title_tokens")
    sft = {name: value for name, value in non_defaults(config.sft).items() if name not in unread}
    return {
        **llm_settings(config),
        **product_settings(config),
        "prompt": [INSTRUCTION, RESPONSE],
        "max_len": config.training.max_len,
        "sft": sft,
    }


def augment_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the augmentation."""
    return {
        **llm_settings(config),
        "prompt": [INSTRUCTION, RESPONSE],
        "knowledge": non_defaults(config.knowledge),
    }


def untuned_llm_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the ablation without SFT."""
    return {
        **llm_settings(config, own_lora=True),
        "prompt": [INSTRUCTION, RESPONSE],
        "knowledge": non_defaults(config.knowledge),
        "num_clusters": config.preferences.num_clusters,
        **item_input_settings(config),
    }


def ensemble_settings(config: Config) -> dict[str, Any]:
    """What determines the result of a sum of recommenders, beside these."""
    evaluated = ("selection", "validation_users", "test_users")
    return {
        "ensemble": non_defaults(config.ensemble),
        "training": {name: value for name, value in non_defaults(config.training).items() if name in evaluated},
        **metric_settings(config),
    }


def item_input_settings(config: Config) -> dict[str, Any]:
    """Of a stage that shows items to the language model, but is not trained: what of an item, where titles are read."""
    if not config.sft.reads_titles:
        return {}
    return {"sft": {name: value for name, value in non_defaults(config.sft).items() if name in ITEM_INPUT}}


def e4srec_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the rival method E4SRec."""
    evaluated = ("validation_users", "test_users")
    counts = {name: value for name, value in non_defaults(config.training).items() if name in evaluated}
    return {
        **llm_settings(config, own_lora=True),
        **product_settings(config),
        "max_len": config.training.max_len,
        "selection": config.training.selection,
        "e4srec": non_defaults(config.e4srec),
        # Left out where all users are evaluated, so that the keys of results are those of the time before it was read.
        **({"training": counts} if counts else {}),
        **metric_settings(config),
    }


def ranker_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the ranker of the rival method LlamaRec; what it evaluates, its retriever says."""
    return {
        **llm_settings(config, own_lora=True),
        **product_settings(config),
        "llamarec": non_defaults(config.llamarec),
        **metric_settings(config),
    }


def ease_settings(config: Config) -> dict[str, Any]:
    """What determines the result of EASE: its own settings, and who is evaluated."""
    evaluated = ("validation_users", "test_users")
    return {
        "ease": non_defaults(config.ease),
        "training": {name: value for name, value in non_defaults(config.training).items() if name in evaluated},
        **metric_settings(config),
    }


def item_index_settings(config: Config) -> dict[str, Any]:
    """What determines the item index: of the settings, those that its kind reads."""
    unread = {"num_clusters", "leaf_size", "counted"} if config.item_index.kind != "collaborative" else set()
    if config.item_index.kind == "random":
        unread.add("user_order")
    settings = {name: value for name, value in non_defaults(config.item_index).items() if name not in unread}
    return {"item_index": settings}


def p5_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the rival method P5.

    The name of the data set is a word of its texts, and part of the key of the data.
    """
    from tslrec.llm.encoder_decoder.source import t5_settings, tokenizer_settings

    unread = {"tokens_at_once", "lora"}
    return {
        "t5": {**t5_settings(config.t5), **tokenizer_settings(config.t5)},
        "p5": {name: value for name, value in non_defaults(config.p5).items() if name not in unread},
        "training": evaluated_settings(config),
        "precision": config.trainer.precision,
        **product_settings(config),
        **metric_settings(config),
    }


def p5_llm_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the rival method P5 in its decoder-only form; see `p5_settings`."""
    return {
        **llm_settings(config, own_lora=True),
        **product_settings(config),
        "p5": non_defaults(config.p5),
        "training": evaluated_settings(config),
        **metric_settings(config),
    }


def evaluated_settings(config: Config) -> dict[str, Any]:
    """Of the section `training` what P5 reads: which users are evaluated, and what selects the weights."""
    read = ("selection", "validation_users", "test_users")
    return {name: value for name, value in non_defaults(config.training).items() if name in read}


def pod_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the rival method POD."""
    from tslrec.llm.encoder_decoder.source import t5_settings, tokenizer_settings

    evaluated = ("validation_users", "test_users")
    return {
        "t5": {**t5_settings(config.t5), **tokenizer_settings(config.t5)},
        "pod": non_defaults(config.pod),
        "training": {name: value for name, value in non_defaults(config.training).items() if name in evaluated},
        "precision": config.trainer.precision,
        **product_settings(config),
        **metric_settings(config),
    }


def projection_settings(config: Config) -> dict[str, Any]:
    """What determines the result of the ablation with a random projection: the size of its output."""
    from tslrec.llm.shape import shape_of

    return {"size": shape_of(config.llm).hidden_size}


def title_states_settings(config: Config) -> dict[str, Any]:
    """What determines the states of the items' titles."""
    read = {"layer", "title_tokens"}
    numbers = {name: value for name, value in non_defaults(config.item_text).items() if name in read}
    return {**llm_settings(config, own_lora=True), "item_text": numbers}


def item_text_settings(config: Config) -> dict[str, Any]:
    """What determines the knowledge that is made from these states."""
    read = {"size", "whitened", "control"}
    return {"item_text": {name: value for name, value in non_defaults(config.item_text).items() if name in read}}


def with_llm(config: Config) -> str:
    """The label of a stage that runs the language model."""
    return f"{config.model['name']}-{config.llm.name}"
