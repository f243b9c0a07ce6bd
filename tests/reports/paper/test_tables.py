"""Table 2 and the ablations from made-up cells: what they hold, what they keep apart, and what stands beside what."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from support.made_cells import make_cell
from support.made_sections import RESULTS, measured, section_of, table, text
from tslrec.reports.paper.cells import CellResult
from tslrec.reports.paper.comparisons import rivals
from tslrec.reports.paper.document import TableCell
from tslrec.reports.paper.seed_rows import rows_of


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


def test_the_ablations_stand_beside_the_methods(cells: list[CellResult]) -> None:
    section = section_of("ablations", cells, RESULTS)
    rows = table(section.tables, "history masked")
    assert [text(row["method"]) for row in rows] == ["Base", "CI", "TSLRec", "Own"]
    (row,) = table(section.more, "history not masked")
    assert text(row[""]) == "TSLRec − Own"


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
