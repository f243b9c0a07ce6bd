"""The GPU script's last part: missing cells of the grid, rehearsed on the CPU."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

import gpu
from gpu_parts import cells
from gpu_parts.bench import Bench, NotMeasuredError
from tslrec.reports.paper.grid import Cell


@pytest.mark.slow
def test_missing_cells_are_run_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--rehearse", "--part", "cells", "--folder", str(tmp_path), "--out", str(tmp_path / "gpu.json")]
    gpu.main(where)
    step = json.loads((tmp_path / "gpu.json").read_text())["steps"]["cells/missing"]
    assert step["ended"] == "measured"
    assert step["figures"]["cells_done"]["value"] == 2
    with tarfile.open(tmp_path / "new_cells.tar") as tar:
        names = sorted(tar.getnames())
    stems = [f"synthetic-sasrec-{method}-quickstart-seed0" for method in ("base", "ci")]
    assert names == sorted(f"{stem}.{kind}" for stem in stems for kind in ("json", "safetensors"))

    capsys.readouterr()
    gpu.main(where)
    assert "measured already" in capsys.readouterr().out


def cell(**others: Any) -> Cell:
    chosen = {
        "group": "",
        "data": "beauty",
        "model": "sasrec",
        "method": "base",
        "preset": "tuned",
        "llm": "",
        **others,
    }
    return Cell(seed=0, trainer="gpu", **chosen)


def test_only_cells_whose_files_are_there_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench("cuda", False, tmp_path, tmp_path)
    monkeypatch.setattr(cells, "has_weights", lambda: False)
    assert not cells.can_run(cell(), bench)
    (tmp_path / "beauty").mkdir()
    (tmp_path / "beauty" / "beauty.txt").write_text("1 2 3\n")
    assert cells.can_run(cell(method="ci"), bench)
    assert not cells.can_run(cell(data="yelp"), bench)
    assert not cells.can_run(cell(method="tslrec"), bench)
    summed = cell(method="ensemble", settings=('members=["model=sasrec","method=text model=fmlp"]',))
    assert not cells.can_run(summed, bench)
    monkeypatch.setattr(cells, "has_weights", lambda: True)
    assert cells.can_run(cell(method="tslrec"), bench)
    assert cells.can_run(summed, bench)


def test_named_cells_come_in_the_order_of_their_patterns_and_once() -> None:
    grid = [cell(method=method) for method in ("base", "ci", "tslrec")]
    found = cells.named(grid, ["*-tslrec-*", "beauty-sasrec-*", "nothing"])
    assert [each.method for each in found] == ["tslrec", "base", "ci"]


def test_results_of_named_cells_are_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the step sets for its runs is taken back.
    monkeypatch.setenv("TSLREC_CACHE", str(tmp_path))
    bench = Bench("cuda", False, tmp_path, tmp_path, cells=("beauty-sasrec-base-*",))
    cells.prepare(bench, tmp_path / "results")
    taken = {path.name for path in (tmp_path / "results" / "cells").iterdir()}
    assert not any(name.startswith("beauty-sasrec-base-") for name in taken)
    assert any(name.startswith("beauty-sasrec-ci-") for name in taken)


def test_nothing_to_run_is_a_reason_and_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "can_run", lambda cell, bench: False)
    with pytest.raises(NotMeasuredError, match="no cell of the grid is missing"):
        cells.missing(Bench("cpu", True, tmp_path, tmp_path))
