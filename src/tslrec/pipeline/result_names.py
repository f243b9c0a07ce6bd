"""The names under which tables list a recorded result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tslrec.evaluation.protocols import LIST_SIGN
from tslrec.pipeline.choices import choice_title
from tslrec.stages.registry import generates_lists

Names = tuple[str, str, str, str]
"""Data set, backbone, preset, method."""


def names_of(result: Mapping[str, Any]) -> Names:
    """The names under which tables list a result; the backbone's includes the source model's if it is another one."""
    model, source = str(result["model"]), str(result["source_model"])
    return str(result["data"]), model if source == model else f"{model} ({source})", result["preset"], result["method"]


def method_title(method: str, config: Mapping[str, Any]) -> str:
    """The title of a method as its run's configuration states it, else as `configs/method` does, else its name.

    Behind it `LIST_SIGN` where the method's ranks are places in generated lists.
    """
    section = config.get("method", {})
    title = choice_title("method", method) if section.get("title") is None else str(section["title"])
    return f"{title} {LIST_SIGN}" if generates_lists(section.get("stages") or ()) else title
