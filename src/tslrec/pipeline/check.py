"""Whether a configuration can work: checked within seconds, before any data are read or anything is computed.

The method's stages and its fusion are checked in `check_method`, what the machine must have in `check_machine`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from tslrec.config import DEFAULT_METRICS, MODEL_KEYS, Config
from tslrec.pipeline.check_machine import check_llm, check_machine
from tslrec.pipeline.check_method import check_fusion, check_stages
from tslrec.stages.registry import stages_of
from tslrec.system.device_profiles import profile_of
from tslrec.system.errors import UserError
from tslrec.system.targets import check_target

__all__ = ["check", "check_catalogue", "check_data", "check_llm", "check_stages", "check_target", "check_values"]

GIVEN_TO_MODEL = frozenset({"item_embedding", "num_users", "max_len"})
"""Parameters of a backbone that Python fills in."""


def check(config: Config) -> None:
    """Checks the configuration of one run.

    Raises:
        UserError: naming the key that cannot work, and what to set it to.
    """
    check_stages(config)
    check_data(config)
    sections = {section for stage in stages_of(config) for section in stage.sections}
    if "model" in sections:
        check_target("model", config.model, given=GIVEN_TO_MODEL, own=MODEL_KEYS)
    if "fusion" in sections:
        check_fusion(config)
    check_machine(config)
    check_llm(config)


def check_data(config: Config) -> None:
    """Checks all values and the reader of the data set, which is enough for a program that only reads data.

    Free of heavy imports.

    Raises:
        UserError: naming the key and what is wrong with it.
    """
    check_values(config)
    check_target("data.reader", config.data.reader, given={"path"})


def check_values(config: Config) -> None:
    """Checks what types alone do not rule out: the bounds beside the fields, and conditions on several fields.

    Raises:
        UserError: naming the key and its bounds.
    """
    for key, value, bounds in bounded_fields(config):
        check_bounds(key, value, **bounds)
    layer = config.knowledge.layer
    if layer not in ("last", "mean") and not (layer.isdecimal() and int(layer) > 0):
        raise UserError(f"knowledge.layer={layer}: must be last, mean, or the number of a layer, from 1")
    layers = (config.llm.shape or config.llm.random or {}).get("num_hidden_layers")
    if layer.isdecimal() and layers is not None and int(layer) > layers:
        raise UserError(f"knowledge.layer={layer}: llm={config.llm.name} has {layers} layers; name one of them")
    if config.llm.weight_bits not in (None, 8, 4):
        raise UserError(f"llm.weight_bits={config.llm.weight_bits}: must be 8, 4 or null")
    check_metrics(config.metrics)
    profile_of(config.trainer.device)


def check_metrics(metrics: Sequence[str]) -> None:
    """Whether all metrics are known; the default ones are, without the import of torch that the others need."""
    if not metrics:
        raise UserError("metrics=[]: name at least one, such as NDCG@10")
    if unknown := [name for name in metrics if name not in DEFAULT_METRICS]:
        from tslrec.evaluation.metrics import parse_metric

        for name in unknown:
            parse_metric(name)


def bounded_fields(section: Any, prefix: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """The key, the value and the bounds of each field with bounds, in a section and in the sections inside it.

    Fields that are null are left out.

    Args:
        section: a dataclass of the configuration.
        prefix: of the section's keys, with its dot.
    """
    for each in fields(section):
        value, key = getattr(section, each.name), prefix + each.name
        if is_dataclass(value):
            yield from bounded_fields(value, f"{key}.")
        elif each.metadata and value is not None:
            yield key, value, dict(each.metadata)


def check_bounds(
    key: str,
    value: Any,
    *,
    choices: tuple[str, ...] | None = None,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
) -> None:
    """Refuses a value that is out of its bounds or not finite (see `tslrec.config.bounded` and `one_of`).

    Raises:
        UserError: naming the key and its bounds.
    """
    if choices is not None:
        if value not in choices:
            raise UserError(f"{key}={value}: must be one of {', '.join(choices)}")
        return
    too_low = (least is not None and not value >= least) or (above is not None and not value > above)
    if not too_low and math.isfinite(value) and (most is None or value <= most):
        return
    lower = f"above {above:g}" if above is not None else f"{least:g} or more"
    raise UserError(f"{key}={value}: must be {lower if most is None else f'from {least:g} to {most:g}'}")


def check_catalogue(config: Config, num_items: int) -> None:
    """Checks what can be checked only once the number of items is known.

    Raises:
        UserError: if more negatives are to be drawn than there are items.
    """
    drawn = config.training.num_negatives
    if drawn is not None and drawn >= num_items:
        raise UserError(
            f"training.num_negatives={drawn}: {config.data.name} has only {num_items} items; set it lower, or to null "
            "for the softmax over all of them"
        )
