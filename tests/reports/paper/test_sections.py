"""Tables and figures from made-up cells: what they hold, what they keep apart, and what they leave out."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.checkout import CHECKOUT
from support.made_cells import make_cell, make_cells
from tslrec.cli.main import main
from tslrec.data.ingest import ingest
from tslrec.pipeline.composition import compose_overrides
from tslrec.reports import paper
from tslrec.reports.paper import sections
from tslrec.reports.paper.cells import CellResult
from tslrec.reports.paper.comparisons import rivals
from tslrec.reports.paper.document import Section, TableCell, TableView
from tslrec.reports.paper.figure3 import count
from tslrec.reports.paper.grid import read_grid
from tslrec.reports.paper.sections import (
    SectionInputs,
    find_section,
    make_section,
    section_modules,
    section_names,
    wanted_by,
)
from tslrec.reports.paper.seed_rows import ABLATIONS, rows_of
from tslrec.system.errors import UserError

RESULTS = CHECKOUT / "results"


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[CellResult]:
    return make_cells(tmp_path_factory.mktemp("cells"))


def section_of(name: str, cells: Sequence[CellResult], results: Path, titles: Path | None = None) -> Section:
    return make_section(name, SectionInputs(cells, results, titles))


def text(value: TableCell | str) -> str:
    return value.text if isinstance(value, TableCell) else value


def table(tables: Sequence[TableView], *words: str) -> list[dict[str, TableCell | str]]:
    """The rows of the one table whose title has some words, by column; of columns of the same name the first."""
    (found,) = [each for each in tables if all(word in each.title for word in words)]
    return [dict(reversed(list(zip(found.columns, row, strict=True)))) for row in found.rows]


def measured(rows: Sequence[dict[str, TableCell | str]]) -> list[dict[str, TableCell | str]]:
    """The rows that have cells."""
    return [row for row in rows if text(row["seeds"]) != "missing"]


def test_table_1_has_ours_above_the_papers(cells: list[CellResult]) -> None:
    section = section_of("table1", cells, RESULTS)
    rows = table(section.tables, "Statistics")
    assert [[text(value) for value in row.values()][::-1][:3] for row in rows] == [
        ["Beauty", "here", "400"],
        ["", "paper", "22,363"],
    ]
    assert section.missing_note == "no cell yet of MovieLens-1M, Yelp"


@pytest.mark.parametrize(("protocol", "title"), [("masked", "history masked"), ("unmasked", "history not masked")])
def test_table_2_has_mean_and_deviation_over_seeds_beside_the_papers(
    cells: list[CellResult], protocol: str, title: str
) -> None:
    rows = measured(table(section_of("table2", cells, RESULTS).tables, "Beauty", title))
    assert [text(row["method"]) for row in rows] == ["Base", "CI", "TSLRec"]
    base = rows[0]["NDCG@10"]
    assert isinstance(base, TableCell)
    values = [cell.content["metrics"][f"test/{protocol}/NDCG@10"] for cell in cells if cell.method == "base"]
    mean, deviation = f"{statistics.fmean(values):.4f}"[1:], f"{statistics.stdev(values):.4f}"[1:]
    assert base.text == f"{mean} ± {deviation}"
    assert base.sources == ("beauty-sasrec-base-tuned-seed0", "beauty-sasrec-base-tuned-seed1")
    assert text(rows[0]["paper NDCG@10"]) == ".0424"


def test_the_best_and_the_second_best_are_marked(cells: list[CellResult]) -> None:
    rows = table(section_of("table2", cells, RESULTS).tables, "Beauty", "history masked")
    marks = [row["HR@10"].mark for row in rows if isinstance(row["HR@10"], TableCell)]
    assert marks == ["", "second", "best"]


def test_rows_without_cells_are_called_missing_in_the_papers_order(cells: list[CellResult]) -> None:
    section = section_of("table2", cells, RESULTS)
    rows = table(section.tables, "Beauty", "history masked")
    names = [(text(row["backbone"]), text(row["method"]), text(row["seeds"])) for row in rows]
    assert names[:4] == [("–", each, "missing") for each in ("POD", "P5", "LlamaRec", "E4SRec")]
    assert [name[1:] for name in names if name[0] == "SASRec"] == [("Base", "2"), ("CI", "2"), ("TSLRec", "2")]
    assert {text(row["HR@5"]) for row in rows if text(row["seeds"]) == "missing"} == {"–"}
    assert text(rows[1]["paper NDCG@10"]) == ".0474"
    # Four methods with a language model, three of each of four backbones, and Base of the two that the paper cites.
    assert len(rows) == 4 + 3 * 4 + 2
    assert section.missing_note == "no cell of MovieLens-1M, Yelp"


def test_what_a_language_model_is_stands_beside_its_numbers(tmp_path: Path) -> None:
    made = make_cell(tmp_path, method="p5", seed=0, variant="laptop")
    told = {
        "llm": "T5-laptop's sizes, weights at random",
        "ranking": "list of 10 by beam search",
        "titles": {"items": 60, "missing": 7, "sha256": "0"},
    }
    cell = replace(made, content={**made.content, **told})
    (row,) = table(section_of("table2", [cell], RESULTS).tables, "language models")
    assert text(row["backbone"]) == "–"
    assert text(row["language model"]) == "T5-laptop's sizes, weights at random"
    assert text(row["titles"]) == "of 53 of 60 items"
    assert text(row["ranks"]) == "list of 10 by beam search"
    ranker = make_cell(tmp_path, method="llamarec", seed=0, model="lru")
    ranker.content["config"]["llamarec"] = {"share": 0.05, "candidates": 20}
    (row,) = table(section_of("table2", [ranker], RESULTS).tables, "language models")
    assert text(row["less than by default"]) == "llamarec.share=0.05"
    assert text(row["titles"]) == "none read"
    assert text(row["ranks"]) == "20 candidates reranked, then the retriever's order"
    # The paper's own row of P5 stands beside it, whatever the variant.
    rows = measured(table(section_of("table2", [cell], RESULTS).tables, "history masked"))
    assert [text(each["paper NDCG@10"]) for each in rows] == [".0474"]


def test_a_large_gain_is_significant_and_a_small_one_is_not(cells: list[CellResult]) -> None:
    rows = table(section_of("table2", cells, RESULTS).more, "history masked")
    assert len(rows) == 8
    found = {(text(row[""]), text(row["metric"])): row for row in rows}
    assert text(found["TSLRec − Base", "HR@10"]["Holm"]) == ".002"
    assert text(found["TSLRec − Base", "HR@10"]["gain"]).startswith(".2")


def test_a_variant_stands_beside_ci_of_its_own_settings_where_there_is_one(tmp_path: Path) -> None:
    made = [make_cell(tmp_path, method=method, seed=0) for method in ("base", "ci", "tslrec")]
    made += [make_cell(tmp_path, method="tslrec", seed=0, variant=name) for name in ("wide", "deep")]
    made.append(make_cell(tmp_path, method="ci", seed=0, variant="wide"))
    rows = rows_of(made)
    found = {
        row.method_title: [each.method_title for each in rivals(row, rows)]
        for row in rows
        if row.method_name == "tslrec"
    }
    assert found == {"TSLRec": ["Base", "CI"], "TSLRec, deep": ["Base", "CI"], "TSLRec, wide": ["Base", "CI, wide"]}


def test_a_variant_stands_beside_ablations_of_its_own_settings_where_there_are_any(tmp_path: Path) -> None:
    made = [make_cell(tmp_path, method=method, seed=0) for method in ("tslrec", "ablation_own_embeddings")]
    made += [make_cell(tmp_path, method="tslrec", seed=0, variant=name) for name in ("wide", "deep")]
    made.append(make_cell(tmp_path, method="ablation_own_embeddings", seed=0, variant="wide"))
    (tests,) = [each for each in section_of("ablations", made, RESULTS).more if "history masked" in each.title]
    assert {text(row[2]) for row in tests.rows} == {"TSLRec − Own", "TSLRec, deep − Own", "TSLRec, wide − Own, wide"}
    assert len(tests.rows) == 3


def test_presets_backbones_and_settings_are_rows_apart(tmp_path: Path) -> None:
    made = [make_cell(tmp_path, method="base", seed=0, preset=preset) for preset in ("tuned", "paper")]
    made.append(make_cell(tmp_path, method="base", seed=0, model="fmlp"))
    other = make_cell(tmp_path / "other", method="base", seed=1)
    other.content["config"]["training"]["batch_size"] = 8
    tables = section_of("table2", [*made, other], RESULTS).tables
    rows = measured(table(tables, "history masked", "tuned"))
    assert [(text(row["backbone"]), text(row["seeds"])) for row in rows] == [
        ("SASRec", "1"),
        ("SASRec", "1"),
        ("FMLP-Rec", "1"),
    ]
    assert len(table(tables, "history masked", "paper")) == 1


def test_a_row_that_cannot_be_is_told(cells: list[CellResult], tmp_path: Path) -> None:
    cell = make_cell(tmp_path, method="base", seed=0)
    cell.content["metrics"]["test/masked/NDCG@10"] = 0.9
    rows = measured(table(section_of("table2", [cell], RESULTS).tables, "history masked"))
    assert text(rows[0]["fits"]) == "no"


def test_figure_3_is_of_what_was_measured_and_spent(cells: list[CellResult]) -> None:
    section = section_of("figure3", cells, RESULTS)
    measured = next(chart for chart in section.charts if chart.title == "Measured on Beauty")
    shared = measured.series[0].points
    assert shared[0] is not None
    seconds = json.loads((RESULTS / "bench" / "llm.json").read_text())["figures"]["sft_whole_shared"]["value"]
    assert shared[0].value == pytest.approx(seconds / 60)
    assert len(table(section.more, "Spent in the cells")) == 4


def test_what_the_language_model_would_do_is_counted_from_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tslrec.reports.paper.figure3.DATA", ["synthetic"])
    monkeypatch.setenv("TSLREC_CACHE", str(tmp_path / "cache"))
    count(tmp_path / "figure3.json")
    section = section_of("figure3", [], tmp_path)
    rows = table(section.tables, "Instances")
    # A user each for TSLRec, a user and position for E4SRec.
    config = compose_overrides(["data=synthetic"])
    lengths = ingest(config.data, tmp_path).train_lengths
    positions, prefixes = np.minimum(lengths, config.training.max_len).sum(), (lengths - 1).sum()
    ours = ["800", f"{positions:,}", "240", "800"]
    # A prefix for LlamaRec, six texts of it for P5, and twelve batches of users for each of POD's two tasks.
    rivals = [f"{prefixes:,}", "800", f"{6 * prefixes:,}", "800", f"{2 * 12 * 64:,}", "800"]
    assert [text(row["instances"]) for row in rows] == [*ours, *rivals]
    assert section.missing_note == "no measurement yet: make bench-llm"
    names = ["TSLRec", "E4SRec", "LlamaRec", "P5", "POD on T5-small"]
    assert [chart.title for chart in section.charts] == ["Llama-2-13B, training", "Llama-2-13B, inference"]
    assert [[each.name.split(",")[0] for each in chart.series] for chart in section.charts] == [names] * 2


def test_figure_4_has_the_shares_with_intervals(cells: list[CellResult]) -> None:
    section = section_of("figure4", cells, RESULTS)
    (chart,) = section.charts
    assert [series.name for series in chart.series] == ["C1", "C2", "C3"]
    first = chart.series[0].points[0]
    assert first is not None
    # 30 of 60 items.
    assert (first.low, first.value, first.high) == pytest.approx((0.3774, 0.5, 0.6226), abs=1e-4)
    (row,) = table(section.tables, "Stability")
    assert text(row["k-means again"]) == ".750 ± .000"
    assert abs(float(text(row["another seed"]))) < 0.1


def test_figure_5_has_each_method_in_each_group_under_each_protocol(cells: list[CellResult]) -> None:
    charts = section_of("figure5", cells, RESULTS).charts
    assert [chart.title.split(", ")[-1] for chart in charts] == ["history masked", "history not masked"]
    for chart in charts:
        assert chart.labels == ["0–79", "80–159", "160–239", "240–319", "320–399"]
        assert [series.name for series in chart.series] == ["Base", "CI", "TSLRec"]


def test_the_ablations_stand_beside_the_methods(cells: list[CellResult]) -> None:
    section = section_of("ablations", cells, RESULTS)
    rows = table(section.tables, "history masked")
    assert [text(row["method"]) for row in rows] == ["Base", "CI", "TSLRec", "Own"]
    (row,) = table(section.more, "history not masked")
    assert text(row[""]) == "TSLRec − Own"


def test_titles_take_the_place_of_ids_where_there_are_any(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('item_id,movie_id,title\n17,1,"A film, 1999"\n4,2,Another\n')
    cell = make_cell(tmp_path, method="tslrec", seed=0, data="ml1m")
    (found,) = section_of("neighbours", [cell], RESULTS, tmp_path / "items.csv").more
    assert [text(value) for value in found.rows[0]][:3] == ["A film, 1999", "<b>", "Another"]


def test_a_shorter_training_keeps_the_best_of_its_epochs(cells: list[CellResult]) -> None:
    (chart,) = section_of("learning", cells, RESULTS).charts
    assert [series.name for series in chart.series] == ["Base", "CI", "TSLRec", "Own"]
    tslrec = [point for point in chart.series[2].points if point is not None]
    assert [chart.labels[0], chart.labels[-1]] == ["1", "end"]
    # Of seed 0 .02, .2, .1 and of seed 1 .04, .2, .1.
    assert [round(point.value, 6) for point in tslrec] == [0.03] + [0.2] * 8
    assert tslrec[0].low == pytest.approx(0.03 - statistics.stdev([0.02, 0.04]))


def test_base_stands_beside_what_another_backbone_knew(cells: list[CellResult], tmp_path: Path) -> None:
    methods = ("tslrec", "ablation_own_embeddings")
    crossed = [make_cell(tmp_path, method=method, seed=0, source="fmlp") for method in methods]
    shown = {chart.title: chart for chart in section_of("learning", [*cells, *crossed], RESULTS).charts}
    assert list(shown) == [f"Beauty, {name}, after so many epochs" for name in ("SASRec", "SASRec from FMLP-Rec")]
    assert [each.name for each in shown["Beauty, SASRec from FMLP-Rec, after so many epochs"].series] == [
        "Base", "TSLRec", "Own",
    ]  # fmt: skip
    rows = table(section_of("ablations", [*cells, *crossed], RESULTS).tables, "from FMLP-Rec", "history masked")
    assert [(text(row["backbone"]), text(row["method"])) for row in rows] == [
        ("SASRec", "Base"),
        ("SASRec from FMLP-Rec", "TSLRec"),
        ("SASRec from FMLP-Rec", "Own"),
    ]
    titles = [chart.title for chart in section_of("figure5", [*cells, *crossed], RESULTS).charts]
    assert titles.count("Beauty, SASRec from FMLP-Rec, history masked") == 1


def test_a_variant_has_charts_of_its_own(cells: list[CellResult], tmp_path: Path) -> None:
    variants = [("tslrec", "wide"), ("base", "lone"), ("base", "whole"), ("tslrec", "whole")]
    made = [make_cell(tmp_path, method=method, seed=0, variant=name) for method, name in variants]
    for section, ending in (("learning", "after so many epochs"), ("figure5", "history masked")):
        charts = section_of(section, [*cells, *made], RESULTS).charts
        lines = {each.title: [line.name for line in each.series if line.name != "Own"] for each in charts}
        assert lines[f"Beauty, SASRec, {ending}"] == ["Base", "CI", "TSLRec"]
        assert lines[f"Beauty, SASRec, wide, {ending}"] == ["Base", "CI", "TSLRec, wide"]
        assert lines[f"Beauty, SASRec, whole, {ending}"] == ["CI", "Base, whole", "TSLRec, whole"]
        assert not any("lone" in title for title in lines)


def test_cells_without_a_curve_are_left_out(cells: list[CellResult]) -> None:
    bare = [replace(cell, content={k: v for k, v in cell.content.items() if k != "curve"}) for cell in cells[:2]]
    (chart,) = section_of("learning", [*bare, *cells[2:]], RESULTS).charts
    assert [series.name for series in chart.series] == ["CI", "TSLRec", "Own"]


@pytest.mark.parametrize("name", section_names())
def test_without_cells_every_section_says_what_is_wanting(name: str) -> None:
    section = section_of(name, [], RESULTS)
    assert isinstance(section, Section)
    assert section.missing_note or name == "figure3"


def test_the_papers_own_rows_are_checked_too(cells: list[CellResult]) -> None:
    rows = table(section_of("table2", cells, RESULTS).more, "own rows")
    assert len(rows) == 48
    doubtful = {
        tuple(text(row[name]) for name in ("data set", "backbone", "method"))
        for row in rows
        if text(row["fits"]) == "no"
    }
    assert ("Beauty", "GRU4Rec", "Base") in doubtful
    assert ("Beauty", "FMLP-Rec", "TSLRec") in doubtful
    assert ("Beauty", "SASRec", "Base") not in doubtful


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
