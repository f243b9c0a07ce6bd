"""Sweeps on this machine: each run for itself, what a person is told, what the record says of runs that are gone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import CHECKOUT
from test_command_line import train
from test_pipeline import SMALL
from tslrec.cli import main
from tslrec.files import write_json
from tslrec.sweep import CellState, Sweep, lock_of, sweeps_at

SECONDS = 240
FOREVER = ["training.max_epochs=100000", "training.patience=100000"]
PROGRAM = Path("train.py")


def sweep_of(folder: Path) -> Sweep:
    (sweep,) = sweeps_at(folder / "artifacts")
    return sweep


def test_a_failed_run_ends_no_other_and_a_rerun_computes_only_what_is_open(tmp_path: Path) -> None:
    choices = ["-m", *SMALL, "method=base", "training.selection=best,masked", "hydra.sweep.dir=artifacts/sweeps"]
    # What a run interpolates is its own.
    choices.append("artifacts=artifacts/${training.selection}")
    run = train(*choices, folder=tmp_path, timeout=SECONDS)
    assert run.returncode == 2
    failed, error = run.stderr.strip().splitlines()[-2:]
    assert failed.startswith("failed   training.selection=best: training.selection=best: must be one of masked, ")
    assert error.startswith("error: 1 of 2 runs did not finish")
    assert [cell.state for cell in sweep_of(tmp_path).status()] == [CellState.FAILED, CellState.DONE]
    assert "Test, history masked" in run.stdout

    before = made_in(tmp_path / "artifacts" / "masked")
    assert len(before) == 2
    again = train(*choices, folder=tmp_path, timeout=SECONDS)
    assert again.returncode == 2
    assert "1 of 2 runs are done already" in again.stdout
    assert "base · backbone" not in again.stdout
    assert made_in(tmp_path / "artifacts" / "masked") == before


def made_in(artifacts: Path) -> dict[Path, float]:
    """When each result was written."""
    return {path: path.stat().st_mtime for path in artifacts.rglob("manifest.json")}


def test_a_killed_run_ends_no_other_that_runs_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # train() gives each run of the sweep this; without it joblib would.
    command = [sys.executable, str(CHECKOUT / "train.py"), "-m", *SMALL, *FOREVER, "launcher=joblib", "method=base"]
    command += ["training.max_epochs=100000,2"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["TSLREC_CACHE"] = str(tmp_path / "cache")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + SECONDS
        while not list(tmp_path.glob("artifacts/sweeps/*/cells/0000.json")):
            assert time.monotonic() < deadline, "the first run did not begin"
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.kill(json.loads(sweep_of(tmp_path).record(0).read_text())["process"], signal.SIGKILL)
        output, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 2
    assert "stopped  training.max_epochs=100000: killed" in errors
    assert "[1/2] done: training.max_epochs=2" in output
    (result,) = tmp_path.glob("artifacts/runs/*/result.json")
    # Two runs share the cores.
    assert json.loads(result.read_text())["threads"] == str(max((os.cpu_count() or 1) // 2, 1))
    main(["report"])
    assert "stopped  training.max_epochs=100000: killed" in capsys.readouterr().out


def test_runs_end_in_good_order_once_the_sweep_is_gone(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(CHECKOUT / "train.py"),
        "-m",
        *SMALL,
        *FOREVER,
        "method=base",
        "training.batch_size=16",
    ]
    environment = {**os.environ, "TSLREC_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + SECONDS
    try:
        while not list(tmp_path.glob("artifacts/backbone/*.partial/log")):
            assert time.monotonic() < deadline, "the training did not begin"
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    (cell,) = sweep_of(tmp_path).status()
    while cell.state is CellState.RUNNING:
        assert time.monotonic() < deadline, "the run goes on"
        time.sleep(0.1)
        (cell,) = sweep_of(tmp_path).status()
    assert (cell.state, cell.note) == (CellState.STOPPED, "by SIGTERM")


def recorded(root: Path, *cells: list[str]) -> Sweep:
    sweep = Sweep.of(root / "sweeps", PROGRAM, cells)
    sweep.write()
    return sweep


def test_the_same_runs_are_the_same_sweep_however_they_are_launched() -> None:
    runs = [["method=base", "seed=0"], ["method=ci", "seed=0"]]
    folder = Sweep.of(Path("sweeps"), PROGRAM, runs).folder
    assert re.fullmatch(r"method-[0-9a-f]{12}", folder.name)
    assert Sweep.of(Path("sweeps"), PROGRAM, [[*each, "launcher=slurm"] for each in reversed(runs)]).folder == folder
    assert Sweep.of(Path("sweeps"), PROGRAM, [[*each, "model=fmlp"] for each in runs]).folder != folder


def test_the_report_names_what_a_sweep_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = recorded(tmp_path, *(["method=base", f"seed={seed}"] for seed in range(5)))
    for number, state, note in ((0, "done", ""), (1, "failed", "no such file"), (2, "running", ""), (3, "running", "")):
        write_json(
            sweep.record(number), {"state": state, "note": note, "result": "../../../runs/gone" if note else None}
        )
    with lock_of(sweep.record(2)):
        main(["report", str(sweep.folder), "--json", str(tmp_path / "report.json")])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "failed   seed=1: no such file",
        "running  seed=2",
        "stopped  seed=3: killed",
        "missing  seed=4",
    ]
    unfinished = json.loads((tmp_path / "report.json").read_text())["unfinished"]
    assert [(each["run"], each["state"]) for each in unfinished[:2]] == [("seed=1", "failed"), ("seed=2", "running")]


def test_a_finished_run_whose_result_was_removed_is_missing(tmp_path: Path) -> None:
    sweep = recorded(tmp_path, ["seed=0"], ["seed=1"])
    write_json(sweep.record(0), {"state": "done", "note": "", "result": "../../../runs/gone"})
    assert [cell.state for cell in sweep.status()] == [CellState.MISSING, CellState.MISSING]
