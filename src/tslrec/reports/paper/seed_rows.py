"""Rows of tables: the cells that differ only in their seed, with mean and standard deviation over the seeds.

Shapes: S seeds, U tested users.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.evaluation.protocols import LIST_MARK
from tslrec.evaluation.user_groups import gains
from tslrec.pipeline.choices import choice, choice_place, choice_title, placed
from tslrec.pipeline.identity import identity
from tslrec.reports.paper.cells import CellResult
from tslrec.reports.paper.document import Point, TableCell, digits
from tslrec.stages.registry import generates_lists, trains_backbone

ABLATIONS = tuple(name for name in placed("method") if name.startswith("ablation_"))
"""The methods that are ablations of TSLRec: those of `configs/method` whose name starts with `ablation_`."""

NO_BACKBONE = "–"
"""What stands for the backbone of a method that trains none."""

MAIN_PRESET = "tuned"
"""The preset that titles do not mention, and that comes first."""


@dataclass(frozen=True)
class Row:
    """The cells of one method with one setting.

    Attributes:
        cells: one per seed, seeds rising.
    """

    cells: tuple[CellResult, ...]

    @property
    def data_name(self) -> str:
        """The data set's name in `configs/data`."""
        return str(self.cells[0].content["data"])

    @property
    def model_name(self) -> str:
        """The backbone's name in `configs/model`."""
        return str(self.cells[0].content["model"])

    @property
    def source_name(self) -> str:
        """The name of the backbone that stage 1 trained; that of `model_name` unless `source_model` was set."""
        return str(self.cells[0].content["source_model"])

    @property
    def method_name(self) -> str:
        """The method's name in `configs/method`."""
        return str(self.cells[0].content["method"])

    @property
    def preset(self) -> str:
        """The preset's name in `configs/preset`."""
        return str(self.cells[0].content["preset"])

    @property
    def variant(self) -> str | None:
        """The grid's name for settings that deviate from the preset; None: there are none."""
        name = self.cells[0].content.get("variant")
        return None if name is None else str(name)

    @property
    def setting(self) -> tuple[str, str, str]:
        """Data set, backbone and preset: what rows must share to be compared."""
        return self.data_name, self.model_name, self.preset

    @property
    def is_plain(self) -> bool:
        """Whether the row has neither a variant nor another source model."""
        return self.variant is None and self.model_name == self.source_name

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the cells."""
        return tuple(cell.name for cell in self.cells)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the cells, rising."""
        return tuple(cell.seed for cell in self.cells)

    @property
    def data_title(self) -> str:
        """The data set's title."""
        return choice_title("data", self.data_name)

    @property
    def backbone_title(self) -> str:
        """The backbone's title, followed by that of the source model if it is another; a dash where none is trained."""
        if not trains_backbone(self.cells[0].content["stages"]):
            return NO_BACKBONE
        own = choice_title("model", self.model_name)
        if self.model_name == self.source_name:
            return own
        return f"{own} from {choice_title('model', self.source_name)}"

    @property
    def method_title(self) -> str:
        """The method's title, followed by the variant if there is one, and by what its ranks are if of no full ranking.

        So the words stand wherever a number of the row does. A method that was removed has its title of then.
        """
        recorded = self.cells[0].content["config"].get("method", {}).get("title")
        is_gone = recorded is not None and not choice("method", self.method_name)
        own = str(recorded) if is_gone else choice_title("method", self.method_name)
        own = own if self.variant is None else f"{own}, {self.variant}"
        return f"{own} ({LIST_MARK})" if self.is_of_lists else own

    @property
    def is_of_lists(self) -> bool:
        """Whether its ranks are places in generated lists (`Stage.generates_lists`)."""
        return generates_lists(self.cells[0].content["stages"])

    @property
    def title(self) -> str:
        """Data set and backbone, followed by the preset if it is not the main one."""
        text = f"{self.data_title}, {self.backbone_title}"
        return text if self.preset == MAIN_PRESET else f"{text}, preset {self.preset}"

    @property
    def title_with_variant(self) -> str:
        """The title, followed by the variant if there is one."""
        return self.title if self.variant is None else f"{self.title}, {self.variant}"

    def values(self, metric: str) -> list[float]:
        """A metric of each seed, by its full name such as `test/masked/HR@10`."""
        return [float(cell.content["metrics"][metric]) for cell in self.cells]

    def mean(self, metric: str) -> float:
        """The mean of a metric over the seeds."""
        return statistics.fmean(self.values(metric))

    def mean_cell(self, metric: str, mark: str = "") -> TableCell:
        """Mean ± standard deviation (n − 1) of a metric over the seeds."""
        return mean_cell(self.values(metric), self, mark)

    def gains(self, protocol: str, name: str, k: int, seeds: Sequence[int]) -> NDArray[np.float64]:
        """Each user's contribution to a metric at cutoff `k`, for some of the seeds, `[S, U]`."""
        by_seed = {cell.seed: cell for cell in self.cells}
        return np.stack([gains(by_seed[seed].ranks(protocol), name, k) for seed in seeds])


def mean_cell(values: Sequence[float], row: Row, mark: str = "", show: Callable[[float], str] = digits) -> TableCell:
    """A table cell with the mean ± standard deviation (n − 1) over the seeds; a single seed has no deviation.

    Args:
        values: one per seed of the row.
        row: the row that the values belong to.
        mark: see `TableCell`.
        show: formats a number.
    """
    text = show(statistics.fmean(values))
    if len(values) > 1:
        text += f" ± {show(statistics.stdev(values))}"
    seeds = ", ".join(f"seed {seed}: {value:.5g}" for seed, value in zip(row.seeds, values, strict=True))
    return TableCell(text, seeds, row.names, mark)


def mean_point(values: Sequence[float], row: Row, detail: str = "") -> Point:
    """A chart's point at the mean over the seeds; its interval is ± one standard deviation (n − 1)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Point(mean, detail=detail, sources=row.names)
    deviation = statistics.stdev(values)
    return Point(mean, mean - deviation, mean + deviation, detail, row.names)


def rows_of(cells: Iterable[CellResult]) -> list[Row]:
    """Groups cells into rows, sorted as in the paper's Table 2; cells with different settings never share a row."""
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for cell in cells:
        content = cell.content
        names = [str(content[name]) for name in ("data", "preset", "model", "source_model", "method")]
        key = (*names, str(content.get("variant")), json.dumps(identity(content, versions=False), sort_keys=True))
        groups.setdefault(key, []).append(cell)
    rows = [Row(tuple(sorted(group, key=lambda cell: cell.seed))) for group in groups.values()]
    return sorted(rows, key=place)


def place(row: Row) -> tuple[object, ...]:
    """Sorts rows as in the paper's Table 2."""
    return (
        choice_place("data", row.data_name),
        row.preset != MAIN_PRESET,
        row.preset,
        choice_place("model", row.model_name),
        row.model_name != row.source_name,
        choice_place("method", row.method_name),
        row.variant or "",
    )


def by_setting(rows: Iterable[Row]) -> list[list[Row]]:
    """Groups rows by data set, preset, backbone and source model.

    Base has no source model, so the Base rows of a backbone come first in the group of each of its source models.
    """
    rows = list(rows)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.data_name, row.preset, row.model_name, row.source_name), []).append(row)
    for (data, preset, model, source), members in groups.items():
        if model != source:
            own = groups.get((data, preset, model, model), ())
            members[:0] = [row for row in own if row.method_name == "base"]
    return list(groups.values())


def by_variant(rows: Sequence[Row]) -> list[list[Row]]:
    """Groups the rows of one setting by variant, so that one chart does not get more lines than a reader can follow.

    A variant without a Base or CI of its own gets the plain one. A variant that has nothing but Base is left out.
    """
    groups = []
    for variant in dict.fromkeys(row.variant for row in rows):
        own = [row for row in rows if row.variant == variant]
        found = {row.method_name for row in own}
        if variant is None or found != {"base"}:
            rivals = [row for row in rows if row.variant is None and row.method_name in {"base", "ci"} - found]
            groups.append([*rivals, *own])
    return groups


def common_seeds(one: Row, other: Row) -> list[int]:
    """The seeds that both rows have; none if they were tested on different numbers of users."""
    same = one.cells[0].content["tested_users"] == other.cells[0].content["tested_users"]
    return [seed for seed in one.seeds if seed in other.seeds] if same else []
