"""`tslrec report`: which runs share a row, what it says of them, and what it refuses."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tslrec.cli.main import main
from tslrec.config import Config
from tslrec.pipeline.choices import choice, placed
from tslrec.pipeline.recorded_results import read_results
from tslrec.reports.summary import summarise
from tslrec.stages.registry import STAGES
from tslrec.system.errors import UserError
from tslrec.system.files import write_json

UNREAD = {
    *("data", "method", "preset", "seed"),
    *("trainer", "logger", "compare", "fallback_llm", "metrics", "examples", "artifacts", "cache"),
    *("continue_from", "members"),
}
"""What a run is called by; what changes no result; and what makes a row of its own (see the test on it)."""
READ_BY_STAGE = {stage.name: stage.sections for stage in STAGES}
MADE_UP = (
    *("preferences", "fusion", "llm", "sft", "knowledge"),
    *("e4srec", "llamarec", "item_index", "p5", "pod", "t5"),
    *("ease", "ensemble", "soft_targets", "item_text"),
)
FIRST = {"model": None, "training": None, **dict.fromkeys(MADE_UP, 1)}


def result(seed: int, ndcg: float, *, method: str = "base", model: str = "sasrec", **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model": {"name": model, "dropout": 0.5},
        "source_model": None,
        "training": {"batch_size": 1024, "learning_rate": 1e-3},
        "seed": seed,
        "artifacts": f"elsewhere/{seed}",
        **{section: {"number": 1} for section in MADE_UP},
    }
    for name, value in changes.items():
        section, key = name.split("__")
        config[section] = {**config[section], key: value}
    metrics = {f"{part}/{p}/{m}": ndcg for part in ("test", "validation") for p in ("masked", "unmasked") for m in
               ("HR@5", "HR@10", "NDCG@5", "NDCG@10")}  # fmt: skip
    return {
        "data": "beauty", "model": model, "source_model": model, "preset": "tuned", "method": method, "seed": seed,
        "metrics": metrics, "config": config,
    }  # fmt: skip


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """Writes runs as training does, one after the other, and returns the artifacts folder."""
    count = 0

    def write(*results: dict[str, Any]) -> Path:
        nonlocal count
        folder = tmp_path / "runs" / f"run-{9 - count}"
        folder.mkdir(parents=True)
        write_json(folder / "result.json", {"results": list(results)})
        os.utime(folder / "result.json", (count, count))
        count += 1
        return tmp_path

    return write


def test_runs_that_differ_by_their_seed_alone_are_one_row() -> None:
    (row,) = summarise([result(2, 0.3), result(0, 0.1), result(1, 0.2)])
    assert row.names == ("beauty", "sasrec", "tuned", "base")
    assert (row.differs, row.seeds) == ("", (0, 1, 2))
    assert row.mean("test/masked/NDCG@10") == pytest.approx(0.2)
    assert row.deviation("test/masked/NDCG@10") == pytest.approx(0.1)


def test_other_settings_are_rows_of_their_own_that_say_in_what() -> None:
    rows = summarise([result(0, 0.1), result(1, 0.1), result(0, 0.2, training__batch_size=64, model__dropout=0.1)])
    assert [row.seeds for row in rows] == [(0, 1), (0,)]
    assert [row.differs for row in rows] == [
        "model.dropout=0.5 training.batch_size=1024",
        "model.dropout=0.1 training.batch_size=64",
    ]
    assert rows[1].deviation("test/masked/NDCG@10") is None


def test_a_setting_that_the_method_does_not_read_makes_no_row() -> None:
    assert len(summarise([result(0, 0.1), result(1, 0.1, llm__number=2)])) == 1
    assert len(summarise([result(s, 0.1, method="tslrec", llm__number=s) for s in (0, 1)])) == 2


@pytest.mark.parametrize("method", placed("method"))
def test_every_section_that_a_method_reads_tells_rows_apart(method: str) -> None:
    read = {section for stage in choice("method", method)["stages"] for section in READ_BY_STAGE[stage]}
    for section in read - {"source_model"}:
        changes: dict[str, Any] = {f"{section}__number": 2}
        changed = result(0, 0.1, method=method, **changes)
        rows = summarise([result(0, 0.1, method=method), changed])
        assert [row.differs for row in rows] == [f"{section}.number={each}" for each in (FIRST[section], 2)]


def test_no_section_of_the_configuration_is_forgotten() -> None:
    sections = {each.name for each in fields(Config)}
    assert sections - {name for names in READ_BY_STAGE.values() for name in names} == UNREAD


def read_from(seed: int, path: str, sha256: str | None, **data: Any) -> dict[str, Any]:
    found = result(seed, 0.1 + seed / 10)
    found["config"]["data"] = {"name": "csv", "path": path, **data}
    return found if sha256 is None else {**found, "content": sha256}


@pytest.mark.parametrize("seed", [0, 1])
def test_runs_on_different_data_never_share_a_row(seed: int) -> None:
    rows = summarise([read_from(0, "a.csv", "aa"), read_from(seed, "b.csv", "bb")])
    assert [(row.differs, row.seeds) for row in rows] == [("data.path=a.csv", (0,)), ("data.path=b.csv", (seed,))]
    rows = summarise([read_from(0, "a.csv", "aa" * 32), read_from(seed, "a.csv", "bb" * 32)])
    assert [row.differs for row in rows] == [f"data.path=a.csv (sha256 {each * 4})" for each in ("aa", "bb")]


def test_the_same_content_under_two_names_is_the_same_data() -> None:
    (row,) = summarise([read_from(0, "a.csv", "aa"), read_from(1, "elsewhere/a.csv", "aa", titles="t.csv", place=3)])
    assert (row.differs, row.seeds) == ("", (0, 1))


def test_pinned_data_are_the_same_whether_or_not_the_run_recorded_their_content() -> None:
    pinned = [read_from(0, "a.csv", None, download={"url": "u", "sha256": "aa"}),
              read_from(1, "b.csv", "aa", download={"url": "u", "sha256": "aa"})]  # fmt: skip
    assert [row.seeds for row in summarise(pinned)] == [(0, 1)]


@pytest.mark.parametrize(
    ("section", "one", "other", "keys"),
    [
        ("data", {"min_item_interactions": 0}, {"min_item_interactions": 5}, "data.min_item_interactions"),
        ("data", {"min_user_interactions": 2}, {"min_user_interactions": 5}, "data.min_user_interactions"),
        ("data", {"reader": {"k": 1}}, {"reader": {"k": 2}}, "data.reader.k"),
        ("data", {"reader": {"_target_": "a.read"}}, {"reader": {"_target_": "a.other"}}, "data.reader._target_"),
        ("trainer", {"precision": "32-true"}, {"precision": "bf16-true"}, "trainer.precision"),
        ("model", {"_target_": "a.SASRec"}, {"_target_": "b.Other"}, "model._target_"),
    ],
)
def test_whatever_changes_a_result_makes_a_row(section: str, one: Any, other: Any, keys: str) -> None:
    both = [result(seed, 0.1) for seed in (0, 1)]
    for run, change in zip(both, (one, other), strict=True):
        run["config"][section] = {**run["config"].get(section, {}), **change}
    rows = summarise(both)
    assert [row.seeds for row in rows] == [(0,), (1,)]
    assert all(row.differs.startswith(f"{keys}=") for row in rows)


@pytest.mark.parametrize("method", ["base", "tslrec"])
def test_the_precision_of_the_language_model_counts_where_a_stage_runs_one(method: str) -> None:
    both = [result(seed, 0.1, method=method) for seed in (0, 1)]
    both[1]["config"]["trainer"] = {"llm_precision": "bf16-true"}
    assert len(summarise(both)) == (2 if method == "tslrec" else 1)


@pytest.mark.parametrize(
    ("fact", "value", "name"),
    [
        ("processes", 2, "processes=2"),
        ("version", 8, "version of backbone=8"),
        ("weights", {"name": "x"}, "llm.weights.name=x"),
    ],
)
def test_facts_that_no_setting_tells_make_a_row(fact: str, value: Any, name: str) -> None:
    both = [{**result(seed, 0.1), "stages": {"backbone": {"version": 7, "processes": 1}}} for seed in (0, 1)]
    both[1]["stages"]["backbone"][fact] = value
    assert [row.differs for row in summarise(both)][1] == name


def test_what_a_result_did_not_record_is_read_from_its_artifacts(record: Callable[..., Path]) -> None:
    old = read_from(0, "a.csv", None)
    old["stages"] = {"backbone": {"folder": "moved/away/backbone/csv-sasrec-0123456789ab"}}
    root = record(old)
    facts = {"key": "k", "files": {}, "metrics": {}}
    for folder, manifest in (
        ("backbone/csv-sasrec-0123456789ab", {"version": 7, "processes": 2, "inputs": {"data": "d" * 64}}),
        (f"data/csv-{'d' * 12}", {"config": {"sha256": "aa"}}),
    ):
        (root / folder).mkdir(parents=True)
        write_json(root / folder / "manifest.json", {**facts, **manifest})
    (found,) = read_results(root)
    assert found["content"] == "aa"
    assert (found["stages"]["backbone"]["version"], found["stages"]["backbone"]["processes"]) == (7, 2)


def test_seeds_of_a_stage_that_was_removed_share_a_row_and_its_settings_count() -> None:
    def run(seed: int, number: int) -> dict[str, Any]:
        found = result(seed, 0.1)
        method = {"name": "attic", "title": "Attic", "stages": ["attic", "fusion"]}
        fusion = {"name": "attic", "_target_": "tslrec.models.fusions.attic.AtticFusion"}
        found["config"] |= {"method": method, "fusion": fusion, "attic": {"number": number}}
        return {**found, "method": "attic"}

    rows = summarise([run(0, 1), run(1, 1), run(2, 3)])
    assert [(row.seeds, row.differs) for row in rows] == [((0, 1), "attic.number=1"), ((2,), "attic.number=3")]
    assert {row.title for row in rows} == {"Attic"}


def test_runs_that_continue_runs_of_other_settings_are_rows_of_their_own() -> None:
    both = [{**result(seed, 0.1), "continues": f"digest{seed}"} for seed in (0, 1)]
    assert [row.differs for row in summarise(both)] == [f"continue_from.settings=digest{each}" for each in (0, 1)]


def test_continued_runs_are_a_row_of_their_own() -> None:
    continued = [result(seed, 0.2) for seed in (0, 1)]
    for each in continued:
        each["config"]["continue_from"] = f"artifacts/runs/base-beauty-sasrec-tuned-seed{each['seed']}-0123456789ab"
    rows = summarise([result(0, 0.1), *continued])
    assert [row.seeds for row in rows] == [(0,), (0, 1)]
    assert rows[1].differs == "continue_from=base-beauty-sasrec-tuned"


def test_what_is_absent_has_its_default() -> None:
    old, new = (result(seed, 0.1, method="tslrec") for seed in (0, 1))
    del old["config"]["knowledge"]
    new["config"]["knowledge"] = {"layer": "last", "position": "response"}
    new["config"]["model"] = {**new["config"]["model"], "num_layers": 2, "_target_": "moved.since.SASRec"}
    assert [row.differs for row in summarise([old, new])] == [""]
    new["config"]["model"]["num_layers"] = 3
    assert [row.differs for row in summarise([old, new])] == ["model.num_layers=2", "model.num_layers=3"]


def test_a_method_that_no_file_here_names_has_rows_like_any_other(
    record: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    own = result(0, 0.1, method="mine")
    own["config"]["method"] = {"name": "mine", "stages": ["backbone", "somebodys_stage"]}
    root = record(result(0, 0.2), own)
    main(["report", str(root)])
    assert "mine" in capsys.readouterr().out


def test_methods_stand_in_one_order_and_another_source_is_another_backbone() -> None:
    other = {**result(0, 0.1, method="ci"), "source_model": "gru4rec"}
    rows = summarise([result(0, 0.1, method=name) for name in ("tslrec", "ci", "base")] + [other])
    assert [row.method for row in rows] == ["base", "ci", "tslrec", "ci"]
    assert rows[-1].model == "sasrec (gru4rec)"


def test_of_the_same_run_twice_the_later_counts(record: Callable[..., Path]) -> None:
    record(result(0, 0.1))
    root = record(result(0, 0.4), result(0, 0.3, method="ci"))
    rows = summarise(read_results(root))
    assert [(row.method, row.mean("test/masked/HR@5")) for row in rows] == [("base", 0.4), ("ci", 0.3)]


def test_the_report_fits_80_columns(
    record: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    root = record(*(result(seed, 0.05 + seed / 1000) for seed in (0, 1)), result(0, 0.06, training__batch_size=1))
    main(["report", str(root), "--json", str(root / "report.json")])
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    first = next(line for line in printed if line.startswith("Base"))
    assert first.split() == ["Base", "a", "2", *[".0505±.0007"] * 5]
    assert max(map(len, printed)) <= 80
    assert "a  training.batch_size=1024" in printed
    assert "b  training.batch_size=1" in printed
    assert [row["seeds"] for row in json.loads((root / "report.json").read_text())["rows"]] == [[0, 1], [0]]


def test_the_validation_alone_shows_nothing_of_the_test(
    record: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = result(0, 0.06)
    run["metrics"] |= {name: 0.99 for name in run["metrics"] if name.startswith("test/")}
    # Shares and metrics of test users, of reranked, generated and continued runs.
    others = ("retrieved/masked", "unseen/masked/HR@10", "before/masked/HR@10", "warm/users", "cold/masked/HR@10")
    run["metrics"] |= dict.fromkeys(others, 0.98)
    root = record(run)
    main(["report", str(root), "--validation", "--json", str(root / "report.json")])
    printed = capsys.readouterr().out
    assert printed.startswith("Validation, history masked")
    assert next(line for line in printed.splitlines() if line.startswith("Base")).split() == [
        "Base",
        "1",
        *[".0600"] * 4,
    ]
    (row,) = json.loads((root / "report.json").read_text())["rows"]
    assert set(row["metrics"][0].values()) == {0.06}


def test_no_run_and_one_that_cannot_be_read_are_one_line(tmp_path: Path, record: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="no finished run; name the folder"):
        list(read_results(tmp_path))
    root = record({"data": "beauty"})
    with pytest.raises(UserError, match=r"result.json: not the result of a run"):
        list(read_results(root))
