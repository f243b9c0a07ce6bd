"""The grid of runs behind the tables and figures, in the order in which they run: `results/grid.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from tslrec.system.errors import UserError

LISTS = ("data", "model", "method", "seed")
"""Keys of a group that hold lists; its cells are all combinations, the last key varying fastest."""

SINGLE = ("preset", "llm", "trainer", "source_model", "variant", "settings", "rung", "control_of", "removed")
"""Keys of a group that hold one value."""

OPTIONAL = ("source_model", "variant", "settings", "rung", "control_of", "removed")
"""Those that a group may leave out."""

NEXT_SEED = "<next seed>"
"""In the settings of a group: the seed after that of each cell, for members with a seed of their own."""

RUNGS = ("backbones", "sums", "distillation", "codes", "text", "sft_text", "winner")
"""The rungs of the ladder (`tslrec.reports.paper.ladder`), from the lowest to the highest."""

COMMIT = re.compile("[0-9a-f]{7,40}")
"""What `removed` may be."""


@dataclass(frozen=True)
class Cell:
    """One run of one method.

    Attributes:
        group: name of the group in the grid, which says what the run is for.
        data: the choice of a data set, by its name in `configs/data`; the next ones likewise.
        model: the backbone.
        method: the method.
        seed: the seed.
        preset: the preset.
        llm: the language model.
        trainer: the trainer.
        source_model: the backbone of stage 1 if it is another than `model`.
        variant: name that tells the cell from others with the same choices but other `settings`.
        settings: further overrides of the command line; `NEXT_SEED` in them stands for the seed after the cell's.
        rung: the rung of the ladder that it stands on, one of `RUNGS`; None: it is no part of the ladder.
        control_of: the groups beside which it is there to tell what else than their idea could make a gain.
        removed: the last commit that has its method, which lost and is no longer in the project: its result is shown,
            and it cannot be run; None: it can.
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
    rung: str | None = None
    control_of: tuple[str, ...] = ()
    removed: str | None = None

    @property
    def name(self) -> str:
        """The name of the cell's files."""
        model = self.model if self.source_model is None else f"{self.model}_from_{self.source_model}"
        variant = [] if self.variant is None else [self.variant]
        return "-".join([self.data, model, self.method, self.preset, *variant, f"seed{self.seed}"])

    @property
    def overrides(self) -> list[str]:
        """The command line of the run, without the artifacts folder."""
        chosen = {"data": self.data, "model": self.model}
        if self.source_model is not None:
            chosen["source_model"] = self.source_model
        chosen |= {"method": self.method, "preset": self.preset, "llm": self.llm, "trainer": self.trainer}
        settings = (each.replace(NEXT_SEED, str(self.seed + 1)) for each in self.settings)
        return [*(f"{key}={value}" for key, value in chosen.items()), *settings, f"seed={self.seed}"]

    @property
    def command(self) -> str:
        """The command that a person would type for the run."""
        return " ".join(["python train.py", *self.overrides])


def read_grid(path: Path) -> list[Cell]:
    """All cells of a grid, in order.

    Raises:
        UserError: if the file is no grid, or two of its cells have the same name.
    """
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        grid: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: no grid ({reason}); name a file like results/grid.yaml") from error
    groups, common = (grid.get("groups"), grid.get("common", {})) if isinstance(grid, Mapping) else (None, {})
    if not isinstance(groups, list) or not groups or not all(isinstance(each, Mapping) for each in groups):
        raise UserError(f"{path}: no list of 'groups'; write it like results/grid.yaml")
    if not isinstance(common, Mapping):
        raise UserError(f"{path}: 'common' has no settings of all groups; write it like results/grid.yaml")
    cells = [cell for group in groups for cell in cells_of({**common, **group}, path)]
    check_controls(cells, path)
    seen: set[str] = set()
    for cell in cells:
        if cell.name in seen:
            raise UserError(f"{path}: two cells are called {cell.name}; give one of the groups a 'variant'")
        seen.add(cell.name)
    return cells


def cells_of(group: Mapping[str, Any], path: Path) -> list[Cell]:
    """The cells of a group: all combinations of its lists.

    Raises:
        UserError: if a key of the group is unknown or missing, or has a wrong value.
    """
    name = group.get("name")
    known = {"name", *LISTS, *SINGLE}
    if unknown := sorted(set(group) - known):
        raise UserError(f"{path}: group '{name}' has '{unknown[0]}'; a group has {', '.join(sorted(known))}")
    needed = [each.name for each in fields(Cell) if each.name not in ("group", *OPTIONAL)]
    for key in ("name", *needed):
        if key not in group or (key in LISTS and not isinstance(group[key], list)):
            raise UserError(f"{path}: group '{name}' needs '{key}'{', a list' if key in LISTS else ''}; add it")
    for key in ("settings", "control_of"):
        if not isinstance(group.get(key, []), list):
            raise UserError(f"{path}: group '{name}' has {key}: {group[key]}, which is no list; write [...]")
    if group.get("rung", RUNGS[0]) not in RUNGS:
        raise UserError(f"{path}: group '{name}' has the rung '{group['rung']}'; the rungs are {', '.join(RUNGS)}")
    removed = group.get("removed")
    if removed is not None and not (isinstance(removed, str) and COMMIT.fullmatch(removed)):
        raise UserError(f"{path}: group '{name}' has removed: {removed}, which is no commit; write it like '6ba8946'")
    single = {key: group[key] for key in SINGLE if key in group}
    single |= {key: tuple(single.get(key, ())) for key in ("settings", "control_of")}
    return [
        Cell(group=str(name), **dict(zip(LISTS, values, strict=True)), **single)
        for values in product(*(group[key] for key in LISTS))
    ]


def runnable(cells: Sequence[Cell]) -> list[Cell]:
    """The cells whose method the project still has.

    Raises:
        UserError: if there are cells, and all of them were removed.
    """
    found = [cell for cell in cells if cell.removed is None]
    if cells and not found:
        first = cells[0]
        raise UserError(f"{first.name}: was removed after commit {first.removed}; check it out to run it")
    return found


def check_controls(cells: Sequence[Cell], path: Path) -> None:
    """Checks that a control stands on the rung of the groups that it is a control of.

    Raises:
        UserError: naming the group.
    """
    rungs = {cell.group: cell.rung for cell in cells}
    for cell in cells:
        for other in cell.control_of:
            if cell.rung is None or rungs.get(other) != cell.rung:
                raise UserError(
                    f"{path}: group '{cell.group}' is a control of '{other}', which is no group on its rung; name one"
                )
