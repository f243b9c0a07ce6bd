"""The benchmark of shared cores measures each setting alone and beside busy processes; no test looks at a duration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import shared_cores
from shared_cores import all_settings, figures, main, order_of_round, parse
from timed_steps import BEAUTY_ITEMS, BEAUTY_USERS, CASES, busy_processes, load
from tslrec.system.errors import UserError
from tslrec.system.threads import SPIN_COUNT

QUICK = ["--quick", "--rounds", "1", "--steps", "2", "--seconds", "1"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that `--record` writes, in a folder of the test."""
    file = tmp_path / "bench" / "shared_cores.json"
    monkeypatch.setattr(shared_cores, "RESULTS", file)
    return file


def record(alone: float, beside: float) -> dict[str, object]:
    return {"milliseconds": {"small": {"alone": alone, "beside": beside}}}


def test_each_setting_is_measured_alone_and_beside_busy_processes(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*QUICK, "--record", "--cases", "small", "--settings", "OMP_NUM_THREADS=1"])
    *lines, _ = capsys.readouterr().out.splitlines()
    found = {name: (float(value), unit) for name, value, unit in map(str.split, lines)}
    assert found.keys() == {
        f"small_{way}_{what}_{setting}"
        for way in ("alone", "beside")
        for what in ("step", "ratio")
        for setting in ("torch", "project", "OMP_NUM_THREADS=1")
    }
    written = json.loads(results.read_text())
    assert {name: (each["value"], each["unit"]) for name, each in written["figures"].items()} == found
    (one_thread,) = written["records"]["OMP_NUM_THREADS=1"]
    assert one_thread["threads"] == 1
    assert one_thread["steps"]["small"].keys() == {"alone", "beside"}


def test_nothing_is_written_unless_asked_for(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shared_cores, "measure_in_child", lambda words, setting: json.dumps(record(1.0, 2.0)))
    main(QUICK)
    assert not results.exists()
    main([*QUICK, "--record"])
    assert results.exists()


def test_settings_name_environment_variables_of_threads() -> None:
    project = {"GOMP_SPINCOUNT": str(SPIN_COUNT)}
    both = "GOMP_SPINCOUNT=0,OMP_NUM_THREADS=1"
    assert all_settings([both]) == {
        "torch": {},
        "project": project,
        both: {"GOMP_SPINCOUNT": "0", "OMP_NUM_THREADS": "1"},
    }
    for wrong in ("GOMP_SPINCOUNT", "GOMP_SPINCOUNT=", "PATH=/bin"):
        with pytest.raises(UserError, match=f"--settings {wrong}: "):
            all_settings([wrong])


def test_a_missing_data_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file"):
        parse(["--data", str(tmp_path / "beauty.txt")])


def test_without_a_file_case_large_has_the_size_of_beauty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_cores, "BEAUTY", Path("missing.txt"))
    interactions = load(CASES["large"], parse([]))
    assert (interactions.num_users, interactions.num_items) == (BEAUTY_USERS, BEAUTY_ITEMS)
    assert load(CASES["small"], parse([])).num_items == 240


def test_each_round_measures_every_setting_once_in_another_order() -> None:
    orders = [order_of_round(["a", "b", "c"], number) for number in range(3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_a_ratio_is_to_torch_alone_in_the_same_round() -> None:
    # The machine is half as fast in the second and third round.
    records = {
        "torch": [record(10, 100), record(20, 200), record(20, 200)],
        "project": [record(11, 20), record(22, 40), record(22, 40)],
    }
    found = {name: (value, unit) for name, value, unit in figures(records)}
    assert found["small_alone_step_project"] == (22, "ms")
    assert found["small_alone_ratio_project"] == (1.1, "x")
    assert found["small_beside_ratio_project"] == (2, "x")
    assert found["small_beside_ratio_torch"] == (10, "x")


def test_busy_processes_end_with_the_context() -> None:
    with busy_processes(2) as processes:
        assert len(processes) == 2
        assert all(process.poll() is None for process in processes)
    assert all(process.returncode is not None for process in processes)
