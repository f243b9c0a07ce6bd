"""`tslrec paper` on a grid of tiny runs: what a cell holds, what is run again, failures, and a signal in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from support.checkout import CHECKOUT, PYTHONPATH
from support.waiting import HANG_SECONDS, wait_until
from tslrec.cli.main import main
from tslrec.evaluation.user_groups import gains
from tslrec.reports.paper.cells import CellResult, read_cell, read_cells
from tslrec.reports.paper.grid import read_grid
from tslrec.reports.paper.runner import missing_cells
from tslrec.reports.summary import summarise
from tslrec.system.errors import UserError

pytestmark = pytest.mark.slow

SETTINGS = (
    "data.reader.num_users=60, data.reader.num_items=40, data.reader.num_categories=4, preferences.num_clusters=4, "
    "model.hidden_size=8, training.max_epochs=2"
)
CHOICES = "data: [synthetic], model: [sasrec], seed: [0], preset: quickstart, llm: tiny, trainer: cpu"


def write_grid(path: Path, *groups: str) -> Path:
    path.write_text("groups:\n" + "".join(f"  - {{{CHOICES}, {group}}}\n" for group in groups))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder in which a grid of a cell that fails and one that does not was run, and the arguments for that."""
    folder = tmp_path_factory.mktemp("paper")
    shutil.copy(CHECKOUT / "results" / "paper.json", folder)
    grid = write_grid(
        folder / "grid.yaml",
        f"name: Broken, variant: broken, method: [base], settings: [{SETTINGS}, training.batch_size=0]",
        f"name: Tiny, method: [tslrec], settings: [{SETTINGS}]",
    )
    arguments = ["paper", "--grid", str(grid), "--results", str(folder), "--artifacts", str(folder / "made")]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--jobs", "1"])
    assert caught.value.code == 2
    return folder, arguments


@pytest.fixture(scope="module")
def cell(finished: tuple[Path, list[str]]) -> CellResult:
    return read_cell(finished[0] / "cells" / "synthetic-sasrec-tslrec-quickstart-seed0.json")


def test_a_cell_that_fails_leaves_nothing_and_ends_no_other(finished: tuple[Path, list[str]]) -> None:
    folder, _ = finished
    assert [each.name for each in read_cells(folder / "cells")] == ["synthetic-sasrec-tslrec-quickstart-seed0"]
    log = folder / "made" / "paper" / "synthetic-sasrec-base-quickstart-broken-seed0.log"
    assert "training.batch_size=0" in log.read_text()


def test_a_cell_tells_its_command_metrics_costs_and_versions(cell: CellResult) -> None:
    content = cell.content
    assert content["command"].startswith("python train.py data=synthetic model=sasrec method=tslrec")
    assert "artifacts" not in content["command"]
    assert set(content["stages"]) == {"backbone", "preferences", "sft", "augment", "fusion"}
    for stage in content["stages"].values():
        assert stage["wall_seconds"] > 0
        assert stage["peak_memory_gib"] > 0
        assert "torch" in stage["packages"]
    assert content["statistics"]["users"] == 60
    (row,) = summarise([content])
    assert row.mean("test/masked/NDCG@10") == content["metrics"]["test/masked/NDCG@10"]


def test_no_path_of_the_machine_is_in_a_cell(finished: tuple[Path, list[str]], cell: CellResult) -> None:
    text = cell.path.read_text()
    assert str(finished[0]) not in text
    assert str(Path.home()) + "/" not in text


@pytest.mark.parametrize("protocol", ["masked", "unmasked"])
def test_the_packed_ranks_give_the_metrics(cell: CellResult, protocol: str) -> None:
    for name in ("HR", "NDCG"):
        for k in (5, 10):
            value = gains(cell.ranks(protocol), name, k).mean()
            assert value == pytest.approx(cell.content["metrics"][f"test/{protocol}/{name}@{k}"])


@pytest.mark.parametrize("grouping", ["by_activity", "by_popularity"])
def test_groups_are_of_equal_size_rise_and_add_up(cell: CellResult, grouping: str) -> None:
    groups = cell.content[grouping]
    assert [group["users"] for group in groups] == [12] * 5
    for lower, upper in pairwise(groups):
        assert lower["from"] <= lower["to"] <= upper["from"]
    together = np.mean([group["metrics"]["masked/NDCG@10"] for group in groups])
    assert together == pytest.approx(cell.content["metrics"]["test/masked/NDCG@10"])


def test_the_curve_is_of_the_validations_and_ends_where_the_training_did(cell: CellResult) -> None:
    curve, metrics = cell.content["curve"], cell.content["metrics"]
    assert len(curve) == metrics["epochs"]
    assert curve[metrics["best_epoch"]] == max(curve) == pytest.approx(metrics["validation/masked/NDCG@10"], abs=1e-6)


def test_what_is_known_of_items_is_in_groups_or_of_results(cell: CellResult) -> None:
    assert sum(group["items"] for group in cell.content["gates"]) == 40
    assert cell.arrays["clusters"].shape == (40,)
    assert all(0 < value <= 1 for value in cell.content["kmeans_again"])
    assert len(cell.content["neighbours"]["probes"]) == 8
    assert 0 <= cell.content["neighbours"]["overlap"] <= 1
    assert cell.content["neighbours"]["explained"] <= 1


def test_what_is_there_is_not_run_again(
    finished: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tslrec.reports.paper.runner.subprocess.Popen", None)
    main([*finished[1], "--only", "*tslrec*"])
    assert "1 of 1 cells are there" in capsys.readouterr().out


def test_cells_of_a_removed_method_are_listed_and_neither_counted_nor_run(
    finished: tuple[Path, list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tslrec.reports.paper.runner.subprocess.Popen", None)
    gone = "synthetic-sasrec-attic-quickstart-seed0"
    grid = write_grid(
        tmp_path / "grid.yaml",
        f"name: Tiny, method: [tslrec], settings: [{SETTINGS}]",
        "name: Gone, method: [attic], removed: 6ba8946",
    )
    arguments = [*finished[1], "--grid", str(grid)]
    main([*arguments, "--list"])
    assert capsys.readouterr().out.splitlines() == [
        "done     synthetic-sasrec-tslrec-quickstart-seed0",
        f"removed  {gone}",
    ]
    main(arguments)
    assert "1 of 1 cells are there" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--only", gone])
    assert caught.value.code == 2
    assert f"{gone}: was removed after commit 6ba8946; check it out to run it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--only", gone, "--draw"])
    assert f"--only {gone}: no finished cell matches" in capsys.readouterr().err


def test_a_cell_whose_settings_have_changed_is_run_again(
    finished: tuple[Path, list[str]], log_lines: list[str]
) -> None:
    folder, _ = finished
    (cell,) = [each for each in read_grid(folder / "grid.yaml") if each.method == "tslrec"]
    assert missing_cells([cell], folder / "cells") == []
    changed = replace(cell, settings=(*cell.settings, "training.patience=3"))
    assert missing_cells([changed], folder / "cells") == [changed]
    assert log_lines == [f"{cell.name}: is of other settings (training.patience=5, now 3) and will be run again"]


def test_arrays_that_do_not_belong_to_their_cell_are_refused(
    finished: tuple[Path, list[str]], cell: CellResult, tmp_path: Path
) -> None:
    path = tmp_path / cell.path.name
    path.write_text(json.dumps(dict(cell.content)))
    path.with_suffix(".safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match="not the arrays that"):
        read_cell(path).ranks("masked")


def test_a_signal_ends_the_runs_in_good_order(tmp_path: Path) -> None:
    long = SETTINGS.replace("max_epochs=2", "max_epochs=5000")
    settings = f"[{long}, training.patience=5000, trainer.checkpoint_seconds=0]"
    grid = write_grid(tmp_path / "grid.yaml", f"name: Long, method: [base], settings: {settings}")
    command = [sys.executable, "-m", "tslrec.cli.main", "paper", "--grid", str(grid)]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        checkpoint = "artifacts/backbone/*.checkpoints/step-*"
        wait_until(lambda: list(tmp_path.glob(checkpoint)), "a checkpoint is written", process)
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == "paper: stopped by SIGTERM; the same command goes on"
    (log,) = tmp_path.glob("artifacts/paper/*.log")
    assert "stopped by SIGTERM at step" in log.read_text()
    assert not list(tmp_path.glob("results/cells/*"))
