"""A method that generates lists: its numbers carry the mark in every view, and metrics beyond the lists are refused."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from support.in_process import train_here
from support.made_cells import make_cell
from support.runs import SMALL
from tslrec.evaluation.protocols import LIST_MARK, LIST_NOTE, LIST_SIGN
from tslrec.pipeline.recorded_results import read_results
from tslrec.reports.paper.comparisons import results_table
from tslrec.reports.paper.seed_rows import Row
from tslrec.reports.summary import summarise
from tslrec.reports.summary_view import print_summary
from tslrec.stages import registry
from tslrec.system.consoles import plain_console


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declares that stage 1 generates lists."""
    first, *others = registry.STAGES
    monkeypatch.setattr(registry, "STAGES", (replace(first, generates_lists=True), *others))


def summary(folder: Path) -> str:
    printed = io.StringIO()
    print_summary(summarise(read_results(folder / "artifacts")), plain_console(width=120, file=printed))
    return printed.getvalue()


def result_of(folder: Path) -> dict[str, object]:
    (path,) = (folder / "artifacts" / "runs").glob("*/result.json")
    (result,) = json.loads(path.read_text())["results"]
    assert isinstance(result, dict)
    return result


@pytest.mark.usefixtures("lists")
def test_closing_table_summary_and_record_say_that_ranks_are_of_lists(tmp_path: Path) -> None:
    ended = train_here("method=base", *SMALL, "training.max_epochs=1", folder=tmp_path)
    assert ended.code == 0, ended.err
    for printed in (ended.out, summary(tmp_path)):
        assert LIST_NOTE in printed
        assert f"Base {LIST_SIGN}" in printed
    assert result_of(tmp_path)["ranking"] == LIST_MARK


def test_a_full_ranking_carries_no_mark(tmp_path: Path) -> None:
    ended = train_here("method=base", *SMALL, "training.max_epochs=1", folder=tmp_path)
    assert ended.code == 0, ended.err
    assert all(LIST_SIGN not in printed for printed in (ended.out, summary(tmp_path)))
    assert "ranking" not in result_of(tmp_path)


@pytest.mark.usefixtures("lists")
def test_metrics_beyond_the_lists_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    ended = train_here("method=base", *SMALL, "metrics=[HR@10,MRR@20]", folder=tmp_path)
    assert ended.refusal.startswith("error: metrics: MRR@20 needs ranks beyond 10, and method=base gives each user a ")
    assert LIST_MARK in ended.refusal
    assert not (tmp_path / "artifacts").exists()


def test_the_papers_tables_name_the_lists_in_the_row(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    row = Row((make_cell(tmp_path, method="base", seed=0),))
    table = results_table([row], "masked", "Beauty")
    assert table.rows[0][1] == "Base"
    request.getfixturevalue("lists")
    table = results_table([row], "masked", "Beauty")
    assert table.rows[0][1] == f"Base ({LIST_MARK})"
