"""Labels of what is chosen by name, and a method."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

OWN_KEYS = frozenset({"name", "title", "place"})
"""Keys of a section with a `_target_` that are no parameters: its name, and how tables title and order it."""

MODEL_KEYS = frozenset({*OWN_KEYS, "hidden_size"})
"""Keys of the `model` section that are no parameters of the backbone: the item embedding's width, and labels."""

LAST_PLACE = 1000
"""Of a choice that states no place in tables."""


@dataclass
class MethodConfig:
    """A method: a list of stages and, through `override /fusion`, a choice of fusion.

    Attributes:
        name: the method's name in file names.
        stages: names from `tslrec.stages.registry.STAGES`, in that order.
        title: the method's name in tables; null: `name`.
        place: its place in tables, lower first; ties by name.
    """

    name: str = MISSING
    stages: list[str] = MISSING
    title: str | None = None
    place: int = LAST_PLACE
