"""The rows of the ladder: what the grid puts on its rungs, each beside the tuned Base that it has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tslrec.reports.paper.grid import RUNGS, Cell
from tslrec.reports.paper.sections import GROUND
from tslrec.reports.paper.seed_rows import NO_BACKBONE, Row, common_seeds

RUNG_TITLES = {
    "backbones": "Other backbones",
    "sums": "Sums of scores",
    "distillation": "A teacher's scores",
    "codes": "Codes of items",
    "text": "Titles as knowledge",
    "sft_text": "Titles in the SFT",
    "winner": "All that helps",
}
"""What the page calls the rungs (`tslrec.reports.paper.grid.RUNGS`)."""

REMOVED = "removed"
"""The mark of rows whose method is no longer in the project."""


@dataclass(frozen=True)
class Step:
    """A row that stands on a rung.

    Attributes:
        row: its cells.
        rung: the rung's name.
        group: the group of the grid that says what it is.
        control_of: the groups that it is a control of.
        removed: the last commit that has its method, if that is no longer in the project.
        base: the plain Base of `GROUND` on the same data set, with the same preset.
        own: the plain Base of the row's own backbone, if that is another one.
    """

    row: Row
    rung: str
    group: str
    control_of: tuple[str, ...]
    removed: str | None
    base: Row
    own: Row | None = None

    def validation(self, metric: str) -> float:
        """The mean of a validation metric over the seeds."""
        return self.row.mean(f"validation/{metric}")

    @property
    def words(self) -> str:
        """What it is; marked where its method was removed."""
        return self.group if self.removed is None else f"{self.group} ({REMOVED})"

    @property
    def title(self) -> str:
        """What it is, behind the backbone where one is trained."""
        backbone = "" if self.row.backbone_title == NO_BACKBONE else f"{self.row.backbone_title}: "
        return f"{backbone}{self.words}{' (control)' * self.control}"

    @property
    def control(self) -> bool:
        """Whether it is a control of others."""
        return bool(self.control_of)

    @property
    def seconds(self) -> float:
        """The mean time of all stages over the seeds, those of members among them."""
        return sum(seconds_of(cell.content) for cell in self.row.cells) / len(self.row.cells)

    @property
    def base_seconds(self) -> float:
        """The mean time of the Base over its seeds."""
        return sum(seconds_of(cell.content) for cell in self.base.cells) / len(self.base.cells)

    @property
    def comparable_times(self) -> bool:
        """Whether all its stages, and those of Base, ran on the same kind of machine."""
        return (
            len({machine for cell in (*self.row.cells, *self.base.cells) for machine in machines_of(cell.content)}) == 1
        )

    @property
    def models_served(self) -> int:
        """How many trained models an answer needs."""
        first = self.row.cells[0].content
        return len(first["members"]) if last_stage(first) == "ensemble" else 1


def last_stage(content: Mapping[str, Any]) -> str:
    """The stage that made a cell's recommender."""
    return str(list(content["stages"])[-1])


def stages_of(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The stages of a cell and of its members."""
    return [stage for each in (content, *content.get("members", ())) for stage in each["stages"].values()]


def machines_of(content: Mapping[str, Any]) -> set[tuple[str | None, str | None]]:
    """The GPU, if any, and the processor of each stage."""
    return {
        (stage.get("machine", {}).get("card"), stage.get("machine", {}).get("processor"))
        for stage in stages_of(content)
    }


def seconds_of(content: Mapping[str, Any]) -> float:
    """Wall seconds of the stages of a cell and of its members; a result that several of them use counts once."""
    return sum({str(stage["key"]): float(stage["wall_seconds"]) for stage in stages_of(content)}.values())


def steps(rows: Sequence[Row], grid: Sequence[Cell]) -> list[Step]:
    """The rows on the rungs, from the lowest, that have a ground with a seed in common; controls come last.

    Args:
        rows: of all finished cells.
        grid: says which cells stand on which rung.
    """
    placed = {cell.name: (place, cell) for place, cell in enumerate(grid) if cell.rung is not None}
    bases = {row.setting: row for row in rows if row.method_name == "base" and row.is_plain}
    found = list(on_rungs([row for row in rows if row.names[0] in placed], bases, placed))
    return sorted(found, key=lambda each: (RUNGS.index(each.rung), each.control, placed[each.row.names[0]][0]))


def on_rungs(
    rows: Sequence[Row], bases: Mapping[tuple[str, str, str], Row], placed: Mapping[str, tuple[int, Cell]]
) -> Iterator[Step]:
    """See `steps`; in no order."""
    for row in rows:
        _, cell = placed[row.names[0]]
        ground, own = bases.get((row.data_name, GROUND, row.preset)), bases.get(row.setting)
        if ground is None or not common_seeds(row, ground):
            continue
        differs = own is not None and own is not ground and own is not row and common_seeds(row, own)
        assert cell.rung is not None
        yield Step(row, cell.rung, cell.group, cell.control_of, cell.removed, ground, own if differs else None)


def best_before(step: Step, others: Sequence[Step], metric: str) -> Row | None:
    """The row of the rung before that validation would choose; None on the lowest rung that has a row.

    Rungs without a row of the same data set and preset are passed over.

    Args:
        step: where the comparison starts.
        others: all steps.
        metric: of the validation, such as `masked/NDCG@10`.
    """
    below = [
        each
        for each in others
        if not each.control
        and (each.row.data_name, each.row.preset) == (step.row.data_name, step.row.preset)
        and RUNGS.index(each.rung) < RUNGS.index(step.rung)
        and common_seeds(each.row, step.row)
    ]
    if not below:
        return None
    nearest = max(RUNGS.index(each.rung) for each in below)
    return max((each for each in below if RUNGS.index(each.rung) == nearest), key=lambda e: e.validation(metric)).row


def controls_of(step: Step, others: Sequence[Step]) -> list[Row]:
    """The controls of a row on the same data set and preset, with its backbone where both train one.

    Args:
        step: a row that may have controls.
        others: all steps.
    """
    return [
        each.row
        for each in others
        if step.group in each.control_of
        and (each.row.data_name, each.row.preset) == (step.row.data_name, step.row.preset)
        and len({each.row.backbone_title, step.row.backbone_title} - {NO_BACKBONE}) < 2
        and common_seeds(each.row, step.row)
    ]
