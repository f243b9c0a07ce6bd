"""The registry of sections: every table and figure of the report, declared beside the function that makes it.

To add one, decorate a function in any module of this package; no other file changes:

    @section("table3", place=35, methods=("base", "tslrec"))
    def table3(inputs: SectionInputs) -> Section:
        ...

Names and places are read from the source text, without importing the modules, so that `tslrec paper --help` stays fast.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.reports import paper

if TYPE_CHECKING:
    from tslrec.reports.paper.cells import CellResult
    from tslrec.reports.paper.document import Section
    from tslrec.reports.paper.grid import Cell
    from tslrec.reports.paper.published import PublishedResults
    from tslrec.reports.paper.seed_rows import Row

GROUND = "sasrec"
"""The backbone whose Base all rows of the ladder are compared with, whatever their own backbone is."""

TITLED_DATA = "ml1m"
"""The data set whose item titles a titles file gives."""


@dataclass(frozen=True)
class SectionInputs:
    """What a section is made from.

    Attributes:
        cells: the finished cells.
        results: the folder with the published results of the paper and the benchmarks (`results/`).
        titles_file: CSV or Parquet with the columns `item_id` and `title` of MovieLens-1M's items; None: items go by
            their ids.
        methods: the methods that the section declared.
    """

    cells: Sequence[CellResult]
    results: Path
    titles_file: Path | None = None
    methods: tuple[str, ...] = ()

    @cached_property
    def rows(self) -> list[Row]:
        """The cells, those that differ only in their seed as one row."""
        from tslrec.reports.paper.seed_rows import rows_of

        return rows_of(self.cells)

    @property
    def own_rows(self) -> list[Row]:
        """The rows of the methods that the section declared."""
        return [row for row in self.rows if row.method_name in self.methods]

    @cached_property
    def published(self) -> PublishedResults:
        """The paper's own numbers.

        Raises:
            UserError: if `paper.json` cannot be read.
        """
        from tslrec.reports.paper.published import PublishedResults

        return PublishedResults.read(self.results / "paper.json")

    @cached_property
    def titles(self) -> dict[str, str]:
        """Titles by raw item id; empty without a titles file.

        Raises:
            UserError: if the titles file cannot be read or lacks a column.
        """
        if self.titles_file is None:
            return {}
        from tslrec.data.titles_file import first_titles, read_titles_file

        return dict(first_titles(read_titles_file(self.titles_file, "--titles FILE")).iter_rows())

    def item_title(self, data: str, item: str) -> str:
        """The title of an item of a data set, or its raw id where no title is known."""
        return self.titles.get(item, item) if data == TITLED_DATA else item


@dataclass(frozen=True)
class DeclaredSection:
    """A section as its decorator declared it.

    Attributes:
        name: the section's name on the command line and in links.
        make: makes the section.
        methods: the methods whose cells the section needs; empty: it shows whatever cells exist.
        beside: if not empty, cells are needed only for a data set, backbone and preset for which the grid also has one
            of these methods.
        rungs: whether it needs the cells on a rung of the ladder, whatever their methods, and the tuned Base of their
            backbones and of the backbone that all are compared with.
    """

    name: str
    make: Callable[[SectionInputs], Section]
    methods: tuple[str, ...]
    beside: tuple[str, ...]
    rungs: bool = False

    def needs(self, cell: Cell, grid: Sequence[Cell]) -> bool:
        """Whether the section needs a cell of a grid."""
        if self.rungs:
            return cell.rung is not None or is_ground(cell, grid)
        if cell.method not in self.methods:
            return False
        alike = (other for other in grid if (other.data, other.model, other.preset) == setting_of(cell))
        return not self.beside or any(other.method in self.beside for other in alike)


def is_ground(cell: Cell, grid: Sequence[Cell]) -> bool:
    """Whether a cell is the plain Base that cells of the ladder are compared with."""
    plain = cell.method == "base" and cell.variant is None
    return plain and any(other.rung is not None and (other.data, other.preset) == (cell.data, cell.preset)
                         and cell.model in (other.model, GROUND) for other in grid)  # fmt: skip


def setting_of(cell: Cell) -> tuple[str, str, str]:
    return cell.data, cell.model, cell.preset


DECLARED: dict[str, DeclaredSection] = {}
"""The sections of the modules imported so far, by name; `find_section` imports what is missing."""


def section(
    name: str, *, place: int, methods: Sequence[str] = (), beside: Sequence[str] = (), rungs: bool = False
) -> Callable[[Callable[[SectionInputs], Section]], Callable[[SectionInputs], Section]]:
    """Declares the decorated function as a section; `name` and `place` must be literals.

    Args:
        name: see `DeclaredSection`.
        place: sorts the sections, lower first.
        methods: see `DeclaredSection`.
        beside: see `DeclaredSection`.
        rungs: see `DeclaredSection`.

    Raises:
        ValueError: if two functions declare the same name.
    """

    def declare(make: Callable[[SectionInputs], Section]) -> Callable[[SectionInputs], Section]:
        if name in DECLARED:
            raise ValueError(f"section '{name}': declared by {DECLARED[name].make.__module__} and {make.__module__}")
        DECLARED[name] = DeclaredSection(name, make, tuple(methods), tuple(beside), rungs)
        return make

    return declare


@cache
def section_modules() -> dict[str, str]:
    """The names of all sections in order, each with the module that declares it."""
    found = []
    for path in sorted(path for folder in paper.__path__ for path in Path(folder).glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == section.__name__:
                    place = next(each.value for each in call.keywords if each.arg == "place")
                    found.append((ast.literal_eval(place), ast.literal_eval(call.args[0]), path.stem))
    return {name: f"{paper.__name__}.{module}" for _, name, module in sorted(found)}


def section_names() -> tuple[str, ...]:
    """The names of all sections, in order."""
    return tuple(section_modules())


def find_section(name: str) -> DeclaredSection:
    """The section of a name.

    Raises:
        KeyError: if there is none.
    """
    importlib.import_module(section_modules()[name])
    return DECLARED[name]


def wanted_by(names: Sequence[str], cells: Sequence[Cell]) -> list[Cell]:
    """The cells of a grid that some sections need, in the grid's order."""
    sections = [find_section(name) for name in names]
    return [cell for cell in cells if any(each.needs(cell, cells) for each in sections)]


def make_section(name: str, inputs: SectionInputs) -> Section:
    """Makes a section.

    Raises:
        KeyError: if no section has that name.
        UserError: if a file that the section reads is damaged.
    """
    declared = find_section(name)
    return declared.make(replace(inputs, methods=declared.methods))
