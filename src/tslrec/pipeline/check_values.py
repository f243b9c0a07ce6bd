"""Whether each value of a configuration is in its bounds, without any heavy import."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from tslrec.config import Config
from tslrec.settings.bounds import MOST
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.settings.rivals import P5_TASKS
from tslrec.system.device_profiles import profile_of
from tslrec.system.errors import UserError
from tslrec.system.shown_values import LONGEST_SHOWN, shown

LARGEST_CUTOFF = 1_000_000
"""The largest cutoff of a metric."""

NAME_BYTES = 180
"""The most bytes of all names of which a folder's name is made. A folder's name has 255; keys and suffixes follow."""


def check_values(config: Config) -> None:
    """Checks what types alone do not rule out: the bounds beside the fields, and conditions on several fields.

    Raises:
        UserError: naming the key and its bounds.
    """
    for key, value, bounds in bounded_fields(config):
        check_bounds(key, value, **bounds)
    for key, value in plain_values(asdict(config)):
        check_plain(key, value)
    check_names(config)
    check_sizes("llm.shape", config.llm.shape, zero_allowed=("attention_bias",))
    check_sizes("llm.random", config.llm.random, zero_allowed=("seed",))
    check_layer(config)
    check_item_text(config)
    if config.llm.weight_bits not in (None, 8, 4):
        raise UserError(f"llm.weight_bits={config.llm.weight_bits}: must be 8, 4 or null")
    for section in ("llm", "e4srec", "llamarec", "p5"):
        if not getattr(config, section).lora.targets:
            raise UserError(f"{section}.lora.targets=[]: name at least one linear layer, such as q_proj")
    check_item_index(config)
    check_metrics(config.metrics)
    profile_of(config.trainer.device)


def plain_values(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each number and each text of the configuration with its key.

    Args:
        values: nested mappings and lists.
        prefix: the key of `values`.
    """
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from plain_values(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from plain_values(value, prefix)
    else:
        yield prefix, values


def check_plain(key: str, value: Any) -> None:
    """Refuses numbers that are not finite or larger than 64 bits, and texts that no file can hold.

    Raises:
        UserError: naming the key.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}={value}: must be a finite number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise UserError(f"{key}={shown(value)}: is larger than any number here can be; set it lower")
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= each <= "\udfff" for each in value)):
        raise UserError(f"{key}={shown(value)}: holds a character that is no text; correct it")


def check_names(config: Config) -> None:
    """Checks the names that results carry, and of which the names of their folders are made.

    Raises:
        UserError: naming the key.
    """
    names: dict[str, Any] = {"preset": config.preset}
    for section in ("data", "model", "method", "llm", "t5", "fusion"):
        values = getattr(config, section)
        names[f"{section}.name"] = values.get("name") if isinstance(values, Mapping) else values.name
    for key, name in names.items():
        check_name(key, name)
    sizes = {key: len(str(name).encode()) for key, name in names.items()}
    if (excess := sum(sizes.values()) - NAME_BYTES) > 0:
        longest = max(sizes, key=sizes.__getitem__)
        others = ", ".join(key for key in sizes if key != longest)
        raise UserError(
            f"{longest}={shown(names[longest])}: folders are named by this and by {others}, "
            f"which together may have {NAME_BYTES} bytes; shorten it by {excess}"
        )


def check_name(key: str, name: Any) -> None:
    """Refuses what is no name of a single folder.

    Raises:
        UserError: naming the key.
    """
    if name is None or isinstance(name, Mapping | list | tuple):
        raise UserError(f"{key}={'null' if name is None else shown(name)}: must be a name; folders are named by it")
    text = str(name)
    if text in ("", ".", ".."):
        raise UserError(f"{key}='{text}': is no name that a folder can have; choose another")
    if any(sign in "/\\" or unicodedata.category(sign) == "Cc" for sign in text):
        raise UserError(f"{key}={shown(text)}: folders are named by it; leave out /, \\ and control characters")


def check_layer(config: Config) -> None:
    """Checks the layers of the language model that are read, as far as the configuration tells how many there are.

    Raises:
        UserError: naming the layers that there are.
    """
    layers = (config.llm.shape or config.llm.random or {}).get("num_hidden_layers")
    for key, layer in {"knowledge.layer": config.knowledge.layer, "item_text.layer": config.item_text.layer}.items():
        is_number = layer.isascii() and layer.isdecimal() and len(layer) < 10 and int(layer) > 0
        if layer not in ("last", "mean") and not is_number:
            raise UserError(f"{key}={shown(layer)}: must be last, mean, or the number of a layer, from 1")
        if is_number and layers is not None and int(layer) > layers:
            raise UserError(f"{key}={layer}: llm={config.llm.name} has {layers} layers; name one of them")


def check_item_text(config: Config) -> None:
    """Checks that components that are whitened are chosen, and that the language model's states have so many.

    Raises:
        UserError: naming the numbers.
    """
    size, sizes = config.item_text.size, config.llm.random or config.llm.shape or {}
    if size is None and config.item_text.whitened:
        raise UserError(
            "item_text.whitened=true: whitens principal components, but item_text.size=null keeps the states as they "
            "are; set item_text.size to a number of components, or item_text.whitened=false"
        )
    most = sizes.get("hidden_size")
    if size is not None and most is not None and size > most and "item_text" in config.method.stages:
        raise UserError(f"item_text.size={size}: the states of llm={config.llm.name} have {most} numbers; set it lower")


def check_item_index(config: Config) -> None:
    """Checks that groups of one parent can have different tokens, and P5's tasks.

    Raises:
        UserError: naming the numbers or the tasks.
    """
    clusters, leaf = config.item_index.num_clusters, config.item_index.leaf_size
    if clusters > leaf:
        raise UserError(
            f"item_index.num_clusters={clusters}: more than the {leaf} tokens of item_index.leaf_size, so that codes "
            f"of items would not be unique; set it to {leaf} or less"
        )
    tasks = config.p5.tasks
    for task in tasks:
        if task not in P5_TASKS:
            raise UserError(f"p5.tasks: {shown(task)} is none of {', '.join(P5_TASKS)}{nearest(task, P5_TASKS)}")
    if "sequential" not in tasks or len(set(tasks)) != len(tasks):
        raise UserError("p5.tasks: name each task once, and sequential among them, which the evaluation asks for")


def check_sizes(key: str, sizes: Mapping[str, int] | None, *, zero_allowed: Sequence[str]) -> None:
    """Checks that the sizes of a language model are positive.

    Args:
        key: the key of the sizes.
        sizes: by name.
        zero_allowed: names of those that may be 0.

    Raises:
        UserError: naming the size.
    """
    for name, value in (sizes or {}).items():
        check_bounds(f"{key}.{name}", value, least=0 if name in zero_allowed else 1, most=MOST)


def check_metrics(metrics: Sequence[str]) -> None:
    """Whether all metrics are known; the default ones are, without the import of torch that the others need."""
    if not metrics:
        raise UserError("metrics=[]: name at least one, such as NDCG@10")
    if unknown := [name for name in metrics if name not in DEFAULT_METRICS]:
        from tslrec.evaluation.chosen_metrics import parse_metric

        for name in unknown:
            cutoff = shown(name).partition("@")[2]
            if cutoff.isascii() and cutoff.isdecimal() and len(cutoff) > len(str(LARGEST_CUTOFF)):
                raise UserError(f"metrics: {shown(name)} has a cutoff above {LARGEST_CUTOFF}; set it lower")
            parse_metric(shown(name))


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
    below: float | None = None,
    meaning: str | None = None,
) -> None:
    """Refuses a value that is out of its bounds or not finite (see `tslrec.settings.bounds.bounded` and `one_of`).

    Raises:
        UserError: naming the key and its bounds.
    """
    if choices is not None:
        if value not in choices:
            raise UserError(f"{key}={shown(value)}: must be one of {', '.join(choices)}{nearest(value, choices)}")
        return
    too_low = (least is not None and not value >= least) or (above is not None and not value > above)
    too_high = (most is not None and not value <= most) or (below is not None and not value < below)
    if not too_low and not too_high and math.isfinite(value):
        return
    finite = "" if math.isfinite(value) else " and finite"
    explained = "" if meaning is None else f": it is {meaning}"
    raise UserError(f"{key}={shown(value)}: must be {interval(least, above, most, below)}{finite}{explained}")


def nearest(value: Any, choices: Sequence[str]) -> str:
    """The choice that is spelt most like a value, as the end of a message; empty if none is."""
    import difflib

    found = difflib.get_close_matches(str(value)[:LONGEST_SHOWN], choices, 1)
    return f" (nearest: {found[0]})" if found else ""


def interval(least: float | None, above: float | None, most: float | None, below: float | None) -> str:
    """Bounds in words."""
    lower = f"above {plain(above)}" if above is not None else f"{plain(least or 0)} or more"
    if below is not None:
        return f"{lower} and below {plain(below)}"
    if most is None or most in (MOST, 2**63 - 1):
        return lower if most is None else f"{lower}, {plain(most)} at most"
    return f"{lower}, {plain(most)} at most" if above is not None else f"from {plain(least or 0)} to {plain(most)}"


def plain(number: float) -> str:
    """A number as people write it: a whole one with all of its digits."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"
