"""Sweeps on this machine: no run ends another, and the record and the report name every run that did not finish."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from support.inventories import sweep_of
from support.runs import SMALL, train
from support.waiting import HANG_SECONDS, wait_until
from tslrec.cli.main import main
from tslrec.pipeline.overrides import quoted
from tslrec.pipeline.sweeps.record import CellState, Sweep, lock_of
from tslrec.system.files import write_json

FOREVER = ["training.max_epochs=100000", "training.patience=100000"]
PROGRAM = Path("train.py")


def test_a_failed_run_stops_no_other_run_and_a_rerun_computes_only_what_is_unfinished(tmp_path: Path) -> None:
    choices = ["-m", *SMALL, "method=base", "training.selection=best,masked", "hydra.sweep.dir=artifacts/sweeps"]
    # Each run resolves the interpolation with its own value.
    choices.append("artifacts=artifacts/${training.selection}")
    run = train(*choices, folder=tmp_path)
    assert run.returncode == 2
    failed, error = run.stderr.strip().splitlines()[-2:]
    assert failed.startswith("failed   training.selection=best: training.selection=best: must be one of masked, ")
    assert error.startswith("error: 1 of 2 runs did not finish")
    assert [cell.state for cell in sweep_of(tmp_path).status()] == [CellState.FAILED, CellState.DONE]
    assert "Test, history masked" in run.stdout

    before = made_in(tmp_path / "artifacts" / "masked")
    assert len(before) == 2
    again = train(*choices, folder=tmp_path)
    assert again.returncode == 2
    assert "1 of 2 runs are done already" in again.stdout
    assert "base · backbone" not in again.stdout
    assert made_in(tmp_path / "artifacts" / "masked") == before


CLICKS = "user,item,timestamp\n" + "".join(f"u{u},i{(u + t) % 7},{t}\n" for u in range(9) for t in range(6))


@pytest.mark.parametrize(
    "name", ["o'brien's \"disk\"", "a b, [c] {d}=e;f", "${HOME} $x (1)", "Käufe – 買い物", "back\\slash"], ids=range(5)
)
def test_a_sweep_runs_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    (folder / name).mkdir(parents=True)
    (folder / name / "clicks.csv").write_text(CLICKS)
    # In a value `${` begins an interpolation, and \\${ is a text.
    place = quoted(str(folder / name / "clicks.csv").replace("${", "\\${"))
    artifacts = quoted(str(folder / name / "results").replace("${", "\\${"))
    words = ["method=statistics", "data=csv", f"data.path={place}", f"artifacts={artifacts}"]
    run = train(*words, "-m", "seed=0,1", folder=folder)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("csv: 9 users, 7 items, 54 interactions") == 2
    (sweep,) = (folder / name / "results" / "sweeps").iterdir()
    assert [cell.state for cell in Sweep.read(sweep).status()] == [CellState.DONE, CellState.DONE]


@pytest.mark.parametrize(
    "given",
    [
        ["--config-dir", "my configs"],
        ["--config-dir=my configs"],
        ["hydra.searchpath=[file://my configs]"],
        ["hydra.searchpath=['my configs']"],
        ["launcher=joblib", "--config-dir", "my configs"],
        ["--config-dir", "my configs", "--config-name", "own"],
    ],
    ids=range(6),
)
def test_the_runs_of_a_sweep_find_the_configurations_that_the_sweep_found(tmp_path: Path, given: list[str]) -> None:
    own = tmp_path / "my configs"
    (own / "experiment").mkdir(parents=True)
    (own / "experiment" / "mine.yaml").write_text("# @package _global_\nfallback_llm: tiny\n")
    (own / "own.yaml").write_text("defaults: [train, _self_]\nexamples: 7\n")
    run = train("experiment=mine", "method=statistics", *given, "-m", "seed=0,1", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    options = sweep_of(tmp_path).options
    assert any(str(own) in word for word in options)
    assert ("own" in options) == ("own" in given)


def test_a_sweep_over_data_has_a_row_for_each(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text(CLICKS)
    (tmp_path / "two.csv").write_text(CLICKS + "".join(f"w{u},i{t},{t}\n" for u in range(5) for t in range(7)))
    words = ["method=base", "data=csv", "model.hidden_size=8", "training.max_epochs=1", "data.path=one.csv,two.csv"]
    run = train(*words, "-m", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert [line for line in run.stdout.splitlines() if line[:3] in ("a  ", "b  ")] == [
        "a  data.path=one.csv",
        "b  data.path=two.csv",
    ]


def made_in(artifacts: Path) -> dict[Path, float]:
    """When the manifest of each result was written (seconds since 1970)."""
    return {path: path.stat().st_mtime for path in artifacts.rglob("manifest.json")}


def test_a_killed_run_stops_no_run_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # Without OMP_NUM_THREADS, which train() sets: then joblib shares the cores between the runs.
    command = [sys.executable, str(CHECKOUT / "train.py"), "-m", *SMALL, *FOREVER, "launcher=joblib", "method=base"]
    command += ["training.max_epochs=100000,2"]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["TSLREC_CACHE"] = str(tmp_path / "cache")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        cell = "artifacts/sweeps/*/cells/0000.json"
        wait_until(lambda: list(tmp_path.glob(cell)), "the first run begins", process)
        os.kill(json.loads(sweep_of(tmp_path).record(0).read_text())["process"], signal.SIGKILL)
        output, errors = process.communicate(timeout=HANG_SECONDS)
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


def test_a_run_stops_in_good_order_when_its_sweep_is_killed(tmp_path: Path) -> None:
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
    try:
        log = "artifacts/backbone/*.partial/log"
        wait_until(lambda: list(tmp_path.glob(log)), "the training begins", process)
    finally:
        process.kill()
        process.communicate()
    wait_until(lambda: sweep_of(tmp_path).status()[0].state is not CellState.RUNNING, "the run ends")
    (cell,) = sweep_of(tmp_path).status()
    assert (cell.state, cell.note) == (CellState.STOPPED, "by SIGTERM")


@pytest.mark.parametrize("launcher", ["local", "joblib"])
def test_ctrl_c_stops_the_runs_of_a_sweep_once_each_and_says_which(tmp_path: Path, launcher: str) -> None:
    command = [sys.executable, str(CHECKOUT / "train.py"), "-m", *SMALL, *FOREVER, f"launcher={launcher}", "seed=3,4,5"]
    command += ["method=base", "training.batch_size=16"]
    environment = {**os.environ, "TSLREC_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        at_once = 1 if launcher == "local" else 2
        logged = "artifacts/backbone/*.partial/log/metrics.csv"
        wait_until(lambda: len(list(tmp_path.glob(logged))) == at_once, "the trainings log an epoch", process)
        # As a terminal does: each process of the group gets it.
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in output + errors
    which = "seed=3" if launcher == "local" else "seed=3, seed=4"
    assert errors.splitlines()[-1] == (
        f"sweep: stopped by SIGINT in {which}; 0 of 3 runs are done, the same command goes on with the others"
    )
    cells = sweep_of(tmp_path).status()
    assert [cell.note for cell in cells] == ["by SIGINT"] * at_once + [""] * (3 - at_once)
    # A second signal would have ended them at once, without one.
    assert len(list(tmp_path.glob("artifacts/backbone/*.checkpoints/step-*"))) == at_once


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


def test_the_report_names_the_unfinished_runs_of_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
