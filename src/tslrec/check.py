"""Whether a configuration can work, asked in seconds and before any work."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from typing import Any

from tslrec.binding import check_target
from tslrec.config import OWN_KEYS, Config
from tslrec.errors import UserError

STAGES = (
    "backbone",
    "preferences",
    "sft",
    "augment",
    "own_embeddings",
    "random_projection",
    "untuned_llm",
    "fusion",
    "e4srec",
)
"""Every stage in the only order that makes sense; a method is a selection of them."""

LLM_STAGES = frozenset({"sft", "augment", "untuned_llm", "e4srec"})
"""Those that run the language model."""

NEEDS = {
    "preferences": {"backbone"},
    "sft": {"backbone", "preferences"},
    "augment": {"backbone", "preferences", "sft"},
    "own_embeddings": {"backbone"},
    "random_projection": {"backbone"},
    "untuned_llm": {"backbone"},
    "fusion": set(),
    "e4srec": {"backbone"},
}
"""What a stage reads from earlier ones; what a fusion needs depends on the fusion."""

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "backbone": ("model", "source_model", "training"),
    "preferences": ("preferences",),
    "sft": ("llm", "sft"),
    "augment": ("llm", "knowledge"),
    "own_embeddings": (),
    "random_projection": ("llm",),
    "untuned_llm": ("preferences", "llm", "knowledge"),
    "fusion": ("model", "fusion", "training"),
    "e4srec": ("llm", "e4srec"),
}
"""The sections of the configuration that a stage reads: in them runs of a method can differ."""

MADE_BY = {
    "knowledge_IH": ("augment", "own_embeddings", "random_projection", "untuned_llm"),
    "categories_IK": ("augment",),
    "clusters_I": ("preferences",),
}
"""Which stages make the arrays that fusions ask for by the name of a parameter; a method has one of each."""

MODEL_KEYS = frozenset({*OWN_KEYS, "hidden_size", "padding_row"})
"""Keys of a model's configuration that go to the item embedding and to labels, not to the backbone."""

GIVEN_TO_MODEL = frozenset({"item_embedding", "num_users", "max_len"})
GIVEN_TO_FUSION = frozenset({"num_items", "hidden_size", "padding_row", *MADE_BY})

MOST_HELD_BACK = 0.5

CHOICES: Mapping[str, tuple[str, ...]] = {
    "training.selection": ("masked", "unmasked"),
    "sft.target": ("training", "window"),
    "sft.reduction": ("mean", "sum"),
    "knowledge.position": ("response", "item"),
    "llm.dtype": ("float32", "bfloat16", "float16"),
    "llm.attention": ("sdpa", "eager"),
    "logger.kind": ("csv", "wandb", "tensorboard"),
}


def check(config: Config) -> None:
    """Refuses what cannot work.

    Raises:
        UserError: naming the key, and what to set it to.
    """
    check_stages(config)
    check_data(config)
    if "backbone" in config.method.stages or "fusion" in config.method.stages:
        check_target("model", config.model, given=GIVEN_TO_MODEL, own=MODEL_KEYS)
    if "fusion" in config.method.stages:
        check_target("fusion", config.fusion, given=GIVEN_TO_FUSION)
        for parameter in fusion_inputs(config.fusion):
            makers = [stage for stage in MADE_BY[parameter] if stage in config.method.stages]
            if not makers:
                raise UserError(
                    f"fusion={config.fusion['name']} needs the stage '{MADE_BY[parameter][0]}', which "
                    f"method={config.method.name} does not have; choose another fusion or method=tslrec"
                )
            if len(makers) > 1:
                raise UserError(
                    f"method.stages: {' and '.join(makers)} both make what fusion={config.fusion['name']} reads; "
                    "keep one of them"
                )
    check_machine(config)
    check_llm(config)


def check_data(config: Config) -> None:
    """What everything asks that reads a data set: all values, and the reader; free of heavy imports."""
    check_values(config)
    check_target("data.reader", config.data.reader, given={"path"})


def check_stages(config: Config) -> None:
    """The stages of the method: known, in order, each with what it reads."""
    stages = config.method.stages
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise UserError(f"method.stages: no stage '{unknown[0]}'; the stages are {', '.join(STAGES)}")
    if list(stages) != [stage for stage in STAGES if stage in stages]:
        raise UserError(f"method.stages: {', '.join(stages)} is out of order; the order is {', '.join(STAGES)}")
    for stage in stages:
        missing = NEEDS.get(stage, set()) - set(stages)
        if missing:
            raise UserError(f"method.stages: '{stage}' needs '{min(missing)}' before it; add it to the method")


def check_llm(config: Config) -> None:
    """Whether this machine, and the strategy, can hold the language model as the configuration wants it.

    Raises:
        UserError: if not.
    """
    llm, trainer = config.llm, config.trainer
    if LLM_STAGES.isdisjoint(config.method.stages):
        return
    on_gpu = trainer.accelerator in ("gpu", "cuda")
    if llm.dtype == "float16" and not on_gpu:
        raise UserError(f"llm.dtype=float16: is for GPUs, trainer={trainer.name} has none; set it to float32")
    if llm.weight_bits is None:
        return
    wanted = f"llm.weight_bits={llm.weight_bits}"
    if not on_gpu:
        raise UserError(f"{wanted}: needs a GPU, trainer={trainer.name} has none; set it to null")
    if llm.random is not None:
        raise UserError(f"{wanted}: llm={llm.name} has random weights, which are not quantised; set it to null")
    if isinstance(trainer.llm_strategy, dict) or trainer.llm_strategy not in ("auto", "ddp"):
        raise UserError(f"{wanted}: trainer={trainer.name} partitions weights, not quantised ones; choose trainer=ddp")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{wanted}: needs bitsandbytes: pip install 'tslrec[quantized]'")


def check_values(config: Config) -> None:
    """Values that a type cannot rule out."""
    for key, allowed in CHOICES.items():
        section, name = key.split(".")
        value = getattr(getattr(config, section), name)
        if value not in allowed:
            raise UserError(f"{key}={value}: must be one of {', '.join(allowed)}")
    if not 0 <= config.preferences.softness < float("inf"):
        raise UserError(f"preferences.softness={config.preferences.softness}: must be 0 or more")
    layer = config.knowledge.layer
    if layer not in ("last", "mean") and not (layer.isdecimal() and int(layer) > 0):
        raise UserError(f"knowledge.layer={layer}: must be last, mean, or the number of a layer, from 1")
    layers = (config.llm.shape or config.llm.random or {}).get("num_hidden_layers")
    if layer.isdecimal() and layers is not None and int(layer) > layers:
        raise UserError(f"knowledge.layer={layer}: llm={config.llm.name} has {layers} layers; name one of them")
    if config.llm.weight_bits not in (None, 8, 4):
        raise UserError(f"llm.weight_bits={config.llm.weight_bits}: must be 8, 4 or null")
    at_least_one = {
        "training.max_len": config.training.max_len,
        "training.batch_size": config.training.batch_size,
        "training.max_epochs": config.training.max_epochs,
        "training.patience": config.training.patience,
        "training.eval_batch_size": config.training.eval_batch_size,
        "preferences.num_clusters": config.preferences.num_clusters,
        "preferences.num_starts": config.preferences.num_starts,
        "sft.batch_size": config.sft.batch_size,
        "sft.max_epochs": config.sft.max_epochs,
        "sft.augment_batch_size": config.sft.augment_batch_size,
        "sft.augment_shard_size": config.sft.augment_shard_size,
        "sft.patience": config.sft.patience,
        "sft.eval_batch_size": config.sft.eval_batch_size,
        "llm.lora.rank": config.llm.lora.rank,
        "e4srec.batch_size": config.e4srec.batch_size,
        "e4srec.max_epochs": config.e4srec.max_epochs,
        "e4srec.eval_batch_size": config.e4srec.eval_batch_size,
        "e4srec.lora.rank": config.e4srec.lora.rank,
    }
    for name in ("steps_per_epoch", "num_negatives", "validation_users", "test_users"):
        if (optional := getattr(config.training, name)) is not None:
            at_least_one[f"training.{name}"] = optional
    if config.sft.steps_per_epoch is not None:
        at_least_one["sft.steps_per_epoch"] = config.sft.steps_per_epoch
    for key, number in at_least_one.items():
        if number < 1:
            raise UserError(f"{key}={number}: must be 1 or more")
    above_zero = {
        "training.learning_rate": config.training.learning_rate,
        "sft.learning_rate": config.sft.learning_rate,
        "e4srec.learning_rate": config.e4srec.learning_rate,
        "trainer.device_tflops": config.trainer.device_tflops,
    }
    if (scale := config.fusion.get("knowledge_scale")) is not None:
        above_zero["fusion.knowledge_scale"] = scale
    for key, rate in above_zero.items():
        if not rate > 0:
            raise UserError(f"{key}={rate}: must be above 0")

    if not config.trainer.checkpoint_seconds >= 0:
        raise UserError(f"trainer.checkpoint_seconds={config.trainer.checkpoint_seconds}: must be 0 or more")
    if not 0 <= config.sft.held_back <= MOST_HELD_BACK:
        raise UserError(f"sft.held_back={config.sft.held_back}: a share of the users, from 0 to {MOST_HELD_BACK}")
    exponent = config.training.negative_exponent
    if not 0 <= exponent < float("inf"):
        raise UserError(f"training.negative_exponent={exponent}: must be a number, 0 or more")


def check_catalogue(config: Config, num_items: int) -> None:
    """What can be told once the number of items is known."""
    drawn = config.training.num_negatives
    if drawn is not None and drawn >= num_items:
        raise UserError(
            f"training.num_negatives={drawn}: {config.data.name} has only {num_items} items; set it lower, or to null "
            "for the softmax over all of them"
        )


def fusion_inputs(fusion: Mapping[str, Any]) -> list[str]:
    """Which of `MADE_BY`'s arrays a fusion asks for."""
    found = check_target("fusion", fusion, given=GIVEN_TO_FUSION)
    return [name for name in inspect.signature(found).parameters if name in MADE_BY]


def maker_of(config: Config, parameter: str) -> str:
    """The stage of the method that makes an array which its fusion asks for."""
    return next(stage for stage in MADE_BY[parameter] if stage in config.method.stages)


def check_machine(config: Config) -> None:
    """Whether this machine has what the trainer and the logger ask for."""
    import torch

    if config.logger.kind == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise UserError("logger=tensorboard needs a package: `pip install 'tensorboard>=2.20,<3'`, or set logger=csv")
    trainer = config.trainer
    if trainer.accelerator in ("gpu", "cuda"):
        wanted = trainer.devices if isinstance(trainer.devices, int) else 1
        if torch.cuda.device_count() < max(wanted, 1):
            raise UserError(
                f"trainer={trainer.name} needs {wanted if wanted > 0 else 'a'} GPU(s), this machine shows "
                f"{torch.cuda.device_count()}; choose trainer=cpu, or run it where the GPUs are"
            )
    for key in ("strategy", "llm_strategy"):
        strategy = getattr(trainer, key)
        if isinstance(strategy, str) and any(way in strategy for way in ("spawn", "fork", "notebook")):
            raise UserError(f"trainer.{key}={strategy}: its processes end with each training; set it to ddp")
        if not isinstance(strategy, dict):
            continue
        check_target(f"trainer.{key}", strategy)
        if "deepspeed" in strategy["_target_"].lower() and importlib.util.find_spec("deepspeed") is None:
            raise UserError(f"trainer={trainer.name} needs DeepSpeed, which is for Linux: pip install deepspeed")
