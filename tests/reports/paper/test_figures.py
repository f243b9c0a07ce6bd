"""Figures from made-up cells: what was measured, counted, and drawn."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.made_cells import make_cell
from support.made_sections import RESULTS, section_of, table, text
from tslrec.data.ingest import ingest
from tslrec.pipeline.composition import compose_overrides
from tslrec.reports.paper.cells import CellResult
from tslrec.reports.paper.figure3 import count


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
