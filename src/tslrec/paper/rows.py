"""Cells that differ by their seed alone, as one row with mean and standard deviation."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.choices import choice_place, choice_title, placed
from tslrec.paper.cells import CellResult
from tslrec.paper.groups import gains
from tslrec.paper.views import Shown, digits
from tslrec.summary import setting

ABLATIONS = tuple(name for name in placed("method") if name.startswith("ablation_"))


@dataclass(frozen=True)
class Row:
    """The seeds of one method with one setting, rising."""

    cells: tuple[CellResult, ...]

    def says(self, name: str) -> str:
        """A choice that all cells share: `data`, `model`, `source_model`, `preset`, `method`."""
        return str(self.cells[0].content[name])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(cell.name for cell in self.cells)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(cell.seed for cell in self.cells)

    @property
    def backbone(self) -> str:
        """The backbone's name, with that of stage 1 where it is another."""
        model, source = self.says("model"), self.says("source_model")
        own = choice_title("model", model)
        return own if model == source else f"{own} from {choice_title('model', source)}"

    @property
    def data(self) -> str:
        """The data set's title."""
        return choice_title("data", self.says("data"))

    @property
    def variant(self) -> str | None:
        """What the grid calls its settings where they are not the preset's."""
        name = self.cells[0].content.get("variant")
        return None if name is None else str(name)

    @property
    def method(self) -> str:
        """The method's title, with the variant's name where it is one."""
        own = choice_title("method", self.says("method"))
        return own if self.variant is None else f"{own}, {self.variant}"

    @property
    def is_plain(self) -> bool:
        """Whether it is neither a variant nor of another source."""
        return self.variant is None and self.says("model") == self.says("source_model")

    def values(self, metric: str) -> list[float]:
        return [float(cell.content["metrics"][metric]) for cell in self.cells]

    def mean(self, metric: str) -> float:
        return statistics.fmean(self.values(metric))

    def shown(self, metric: str, mark: str = "") -> Shown:
        """Mean ± standard deviation over seeds (n − 1) of a metric."""
        return spread(self.values(metric), self, mark)

    def gains(self, protocol: str, name: str, k: int, seeds: Sequence[int]) -> NDArray[np.float64]:
        """What each user adds to a metric under some of the seeds, `[S, U]`."""
        by_seed = {cell.seed: cell for cell in self.cells}
        return np.stack([gains(by_seed[seed].ranks(protocol), name, k) for seed in seeds])


def spread(values: Sequence[float], row: Row, mark: str = "", show: Callable[[float], str] = digits) -> Shown:
    """Mean ± standard deviation of a number of each seed."""
    text = show(statistics.fmean(values))
    if len(values) > 1:
        text += f" ± {show(statistics.stdev(values))}"
    seeds = ", ".join(f"seed {seed}: {value:.5g}" for seed, value in zip(row.seeds, values, strict=True))
    return Shown(text, seeds, row.names, mark)


def rows_of(cells: Iterable[CellResult]) -> list[Row]:
    """Rows by data set, preset, backbone and method. Cells of different settings are never one row."""
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in cells:
        content = cell.content
        names = [str(content[name]) for name in ("data", "preset", "model", "source_model", "method")]
        key = (*names, str(content.get("variant")), json.dumps(setting(content), sort_keys=True))
        groups.setdefault(key, []).append(cell)
    rows = [Row(tuple(sorted(group, key=lambda cell: cell.seed))) for group in groups.values()]
    return sorted(rows, key=place)


def by_setting(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of one data set, preset, backbone and source model together, Base beside every source model."""
    rows = list(rows)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(
            (row.says("data"), row.says("preset"), row.says("model"), row.says("source_model")), []
        ).append(row)
    for (data, preset, model, source), members in groups.items():
        if model != source:
            own = groups.get((data, preset, model, model), ())
            members[:0] = [row for row in own if row.says("method") == "base"]
    return list(groups.values())


def by_variant(rows: Sequence[Row]) -> list[list[Row]]:
    """The methods of each variant, beside the plain Base and CI where it has none: more lines are not told apart."""
    groups = []
    for variant in dict.fromkeys(row.variant for row in rows):
        own = [row for row in rows if row.variant == variant]
        found = {row.says("method") for row in own}
        if variant is None or found != {"base"}:
            rivals = [row for row in rows if row.variant is None and row.says("method") in {"base", "ci"} - found]
            groups.append([*rivals, *own])
    return groups


def place(row: Row) -> tuple[object, ...]:
    """In the order of the paper's Table 2."""
    return (
        choice_place("data", row.says("data")),
        row.says("preset") != "tuned",
        row.says("preset"),
        choice_place("model", row.says("model")),
        row.says("model") != row.says("source_model"),
        choice_place("method", row.says("method")),
        row.variant or "",
    )


def common_seeds(one: Row, other: Row) -> list[int]:
    """Seeds of both, of the same users; none where they were tested on others."""
    same = one.cells[0].content["tested_users"] == other.cells[0].content["tested_users"]
    return [seed for seed in one.seeds if seed in other.seeds] if same else []
