"""The frame of the GPU measurements: budgets, a process a part, what is kept when a step fails or takes too long."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

import gpu
from gpu_parts.bench import Bench, Step, unheard
from gpu_parts.following import Budgets, follow
from gpu_parts.record import Record
from tslrec.system.errors import UserError

TELLS = """
import json, sys, time
def tell(name, ended, **more):
    print(json.dumps({"step": name, "ended": ended, "figures": {}, "lines": [], **more}), flush=True)
"""
"""The beginning of a program that tells how far its steps are, as gpu.py does."""


def run(program: str, steps: list[Step], record: Record, until: float | None, folder: Path) -> list[str]:
    command = [sys.executable, "-c", TELLS + program]
    return follow(command, {}, folder / "log", "part", steps, record, Budgets(until))


def step(name: str, seconds: int = 60, *, rest: bool = False) -> Step:
    return Step(name, seconds, lambda bench: None, "nothing", rest=rest)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "gpu.json", fresh=False)


def steps_in(record: Record) -> dict[str, dict[str, object]]:
    content: dict[str, dict[str, object]] = json.loads(record.path.read_text())["steps"]
    return content


def test_the_budgets_of_all_steps_together_stay_below_ten_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--plan"])
    printed = capsys.readouterr().out
    total = int(next(line for line in printed.splitlines() if line.startswith("together")).split()[1])
    starts = gpu.START_SECONDS * len(gpu.PARTS)
    assert total == starts + sum(each.seconds for part in gpu.PARTS for each in gpu.steps_of(part)) < 600


def test_budgets_above_the_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LIMIT_SECONDS", 40)
    with pytest.raises(UserError, match="the budgets add up to"):
        gpu.plan(gpu.PARTS)


@pytest.mark.parametrize("part", gpu.PARTS)
def test_the_steps_of_a_part_have_names_of_their_own(part: str) -> None:
    names = [each.name for each in gpu.steps_of(part)]
    assert names
    assert len(set(names)) == len(names)


def test_a_step_has_its_budget_or_what_is_left_of_the_run() -> None:
    budgets = Budgets(time.time() + 30)
    assert budgets.allowed(step("short", 10)) == 10
    assert 20 < budgets.allowed(step("long", 100)) <= 30
    assert 20 < budgets.allowed(step("rest", 1, rest=True)) <= 30
    assert Budgets(time.time() - 5).allowed(step("late")) == 0


def test_slack_multiplies_budgets_but_not_the_time_of_the_run() -> None:
    budgets = Budgets(time.time() + 30, slack=2.5)
    assert budgets.allowed(step("short", 10)) == 25
    assert 20 < budgets.allowed(step("long", 20)) <= 30


def test_figures_are_kept_when_a_step_is_ended_for_its_time(record: Record, tmp_path: Path) -> None:
    program = "tell('a', 'started'); tell('a', 'running', figures={'x': {'value': 1.0, 'unit': 's'}}); time.sleep(600)"
    assert run(program, [step("a", 2), step("b")], record, time.time() + 600, tmp_path) == ["a"]
    facts = steps_in(record)["part/a"]
    assert facts["ended"] == "out of time"
    assert facts["figures"] == {"x": {"value": 1.0, "unit": "s"}}
    assert record.bad(["part"]) == ["part/a"]
    assert not record.done("part", "a")


def test_a_process_that_dies_costs_the_step_that_it_ran(record: Record, tmp_path: Path) -> None:
    program = "tell('a', 'started'); tell('a', 'measured'); tell('b', 'started'); sys.exit(9)"
    assert run(program, [step("a"), step("b"), step("c")], record, None, tmp_path) == ["a", "b"]
    assert record.done("part", "a")
    assert steps_in(record)["part/b"]["why"] == "the process ended with code 9"


def test_a_process_that_never_starts_costs_one_step_a_time(record: Record, tmp_path: Path) -> None:
    assert run("sys.exit(1)", [step("a"), step("b")], record, None, tmp_path) == ["a"]


def test_what_else_a_process_prints_is_passed_on(
    record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("tell('a', 'started'); print('{a brace}'); tell('a', 'measured')", [step("a")], record, None, tmp_path)
    assert "{a brace}" in capsys.readouterr().out


def test_a_record_of_another_card_is_not_mixed_with_this_ones(record: Record) -> None:
    record.describe({"card": "one"})
    record.put("part", "a", {"ended": "measured"})
    with pytest.raises(UserError, match="was measured on one, this is another"):
        Record(record.path, fresh=False).describe({"card": "another"})
    again = Record(record.path, fresh=True)
    again.describe({"card": "another"})
    assert again.content["steps"] == {}


def test_without_a_card_the_script_says_what_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="make gpu-rehearse"):
        gpu.main(["--part", "scale", "--folder", str(tmp_path), "--out", str(tmp_path / "gpu.json")])
    assert not (tmp_path / "gpu.json").exists()


def test_a_figure_is_told_at_once_with_what_it_is_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[dict[str, dict[str, object]]] = []

    def hear(bench: Bench, ended: str = "", why: str = "") -> None:
        told.append(dict(bench.figures))

    bench = Bench("cpu", True, tmp_path, tmp_path, report=hear)
    bench.figure("speed", 12.34567, "tokens/s", planned=10.0)
    assert told == [{"speed": {"value": 12.35, "unit": "tokens/s", "planned": 10.0}}]
    assert "speed 12.35 tokens/s  planned 10" in capsys.readouterr().out


def test_the_rate_of_products_is_measured_once_a_run(tmp_path: Path) -> None:
    bench = Bench("cpu", True, tmp_path, tmp_path, report=unheard)
    rate = bench.product_rate("float32")
    assert rate > 0
    assert Bench("cpu", True, tmp_path, tmp_path).product_rate("float32") == rate
