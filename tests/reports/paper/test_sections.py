"""The paper's sections: found by their decorator, drawn from made-up cells, and what is missing said."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.made_cells import make_cell, make_cells
from support.made_sections import RESULTS, section_of, table, text
from tslrec.cli.main import main
from tslrec.reports import paper
from tslrec.reports.paper import sections
from tslrec.reports.paper.cells import CellResult
from tslrec.reports.paper.document import Section
from tslrec.reports.paper.grid import read_grid
from tslrec.reports.paper.sections import (
    find_section,
    section_modules,
    section_names,
    wanted_by,
)
from tslrec.reports.paper.seed_rows import ABLATIONS
from tslrec.system.errors import UserError


def test_table_1_has_ours_above_the_papers(cells: list[CellResult]) -> None:
    section = section_of("table1", cells, RESULTS)
    rows = table(section.tables, "Statistics")
    assert [[text(value) for value in row.values()][::-1][:3] for row in rows] == [
        ["Beauty", "here", "400"],
        ["", "paper", "22,363"],
    ]
    assert section.missing_note == "no cell yet of MovieLens-1M, Yelp"


def test_titles_take_the_place_of_ids_where_there_are_any(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('item_id,movie_id,title\n17,1,"A film, 1999"\n4,2,Another\n')
    cell = make_cell(tmp_path, method="tslrec", seed=0, data="ml1m")
    (found,) = section_of("neighbours", [cell], RESULTS, tmp_path / "items.csv").more
    assert [text(value) for value in found.rows[0]][:3] == ["A film, 1999", "<b>", "Another"]


@pytest.mark.parametrize("name", section_names())
def test_without_cells_every_section_says_what_is_wanting(name: str) -> None:
    section = section_of(name, [], RESULTS)
    assert isinstance(section, Section)
    assert section.missing_note or name == "figure3"


def test_the_sections_stand_in_the_papers_order() -> None:
    assert section_names() == (
        "claims", "table1", "table2", "figure3", "figure4", "figure5", "ladder", "ablations", "learning", "popularity",
        "neighbours",
    )  # fmt: skip


def test_a_section_is_found_by_its_decorator_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from tslrec.reports.paper.document import Section\n"
        "from tslrec.reports.paper.sections import SectionInputs, section\n\n\n"
        '@section(\n    "mine",\n    place=35,\n    methods=("base",),\n)\n'
        "def mine(inputs: SectionInputs) -> Section:\n"
        '    return Section("mine", "Mine", f"{len(inputs.cells)} cells of {inputs.methods}")\n'
    )
    monkeypatch.setattr(paper, "__path__", [*paper.__path__, str(tmp_path)])
    section_modules.cache_clear()
    try:
        assert section_names()[2:5] == ("table2", "mine", "figure3")
        assert section_of("mine", [], RESULTS).text == "0 cells of ('base',)"
    finally:
        section_modules.cache_clear()
        sections.DECLARED.pop("mine", None)


def test_two_sections_of_one_name_are_refused() -> None:
    declared = find_section("table1")
    with pytest.raises(ValueError, match=r"'table1': declared by tslrec\.reports\.paper\.table1"):
        sections.section("table1", place=1)(declared.make)


def test_a_titles_file_without_its_columns_ends_in_one_line(cells: list[CellResult], tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id,name\n1,A film\n")
    cell = make_cell(tmp_path, method="tslrec", seed=0, data="ml1m")
    with pytest.raises(UserError, match="item_id and title"):
        section_of("neighbours", [cell], RESULTS, tmp_path / "items.csv")


def test_a_table_wants_the_cells_of_its_methods() -> None:
    grid = read_grid(RESULTS / "grid.yaml")
    ablated = wanted_by(["ablations"], grid)
    beside = [cell for cell in grid if (cell.data, cell.model, cell.preset) == ("beauty", "sasrec", "tuned")]
    assert ablated == [cell for cell in beside if cell.method in ("base", "ci", "tslrec", *ABLATIONS)]
    assert {cell.method for cell in wanted_by(["figure5"], grid)} == {"base", "ci", "tslrec"}
    assert wanted_by(["table1"], grid) == []


def test_drawing_prints_every_section_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_cells(tmp_path / "cells")
    (tmp_path / "paper.json").write_text((RESULTS / "paper.json").read_text())
    monkeypatch.setattr("tslrec.reports.paper.runner.subprocess.Popen", None)
    # No table is cut, however narrow the terminal.
    monkeypatch.setenv("COLUMNS", "60")
    main(["paper", "--draw", "--results", str(tmp_path)])
    printed = capsys.readouterr().out
    for word in (
        "Table 1",
        "Table 2",
        "paper NDCG@10",
        "Figure 3",
        "Figure 4",
        "Figure 5",
        "TSLRec − Own",
        "nearest 5",
    ):
        assert word in printed
