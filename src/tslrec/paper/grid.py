"""Which runs there are behind the tables and figures, in the order in which they are made: `results/grid.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from tslrec.errors import UserError

LISTS = ("data", "model", "method", "seed")
"""The choices of a group that are lists; the cells are all their combinations, the last varying first."""

SINGLE = ("preset", "llm", "trainer", "source_model", "variant", "settings")


@dataclass(frozen=True)
class Cell:
    """One run of one method.

    Attributes:
        group: what it is made for.
        data: choices by the names of their configuration groups, as the next ones.
        source_model: the backbone of stage 1 where it is another.
        variant: tells it from others of the same choices, by its settings.
        settings: further overrides of its command line.
    """

    group: str
    data: str
    model: str
    method: str
    seed: int
    preset: str
    llm: str
    trainer: str
    source_model: str | None = None
    variant: str | None = None
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What its files are called."""
        model = self.model if self.source_model is None else f"{self.model}_from_{self.source_model}"
        variant = [] if self.variant is None else [self.variant]
        return "-".join([self.data, model, self.method, self.preset, *variant, f"seed{self.seed}"])

    @property
    def overrides(self) -> list[str]:
        """The command line of its run, but for the folder of artifacts."""
        chosen = {"data": self.data, "model": self.model}
        if self.source_model is not None:
            chosen["source_model"] = self.source_model
        chosen |= {"method": self.method, "preset": self.preset, "llm": self.llm, "trainer": self.trainer}
        return [*(f"{key}={value}" for key, value in chosen.items()), *self.settings, f"seed={self.seed}"]

    @property
    def command(self) -> str:
        return " ".join(["python train.py", *self.overrides])


def read_grid(path: Path) -> list[Cell]:
    """All cells of a grid, in its order.

    Raises:
        UserError: if the file is no grid, or names two cells alike.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        grid: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: no grid ({reason}); name a file like results/grid.yaml") from error
    if not isinstance(grid, Mapping) or not isinstance(grid.get("groups"), list):
        raise UserError(f"{path}: no list of 'groups'; write it like results/grid.yaml")
    cells = [cell for group in grid["groups"] for cell in cells_of({**grid.get("common", {}), **group}, path)]
    seen: set[str] = set()
    for cell in cells:
        if cell.name in seen:
            raise UserError(f"{path}: two cells are called {cell.name}; give one of the groups a 'variant'")
        seen.add(cell.name)
    return cells


def cells_of(group: Mapping[str, Any], path: Path) -> list[Cell]:
    """The combinations of a group."""
    name = group.get("name")
    known = {"name", *LISTS, *SINGLE}
    if unknown := sorted(set(group) - known):
        raise UserError(f"{path}: group '{name}' has '{unknown[0]}'; a group has {', '.join(sorted(known))}")
    needed = [each.name for each in fields(Cell) if each.name not in ("group", "source_model", "variant", "settings")]
    for key in ("name", *needed):
        if key not in group or (key in LISTS and not isinstance(group[key], list)):
            raise UserError(f"{path}: group '{name}' needs '{key}'{', a list' if key in LISTS else ''}; add it")
    single = {key: group[key] for key in SINGLE if key in group}
    single["settings"] = tuple(single.get("settings", ()))
    return [
        Cell(group=str(name), **dict(zip(LISTS, values, strict=True)), **single)
        for values in product(*(group[key] for key in LISTS))
    ]
