"""The backbones on a card, rehearsed: ours in tiny sizes, the processes of the sides, and the figures of all sides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import card_workers
from card_measure import Span, Spans, card_record
from card_side_tslrec import EPOCHS
from card_worker import answer, card_case
from card_workers import SideFailedError, Worker
from cases import CASES
from gpu_parts import backbones
from gpu_parts.backbones import FILES, SIDES, STEPS, Sides, made_up, one_round, report
from gpu_parts.bench import Bench

CASE = next(case for case in CASES if case.name == "sasrec_d64_beauty")
REQUEST = {"case": CASE.name, "tiny": True, "data": "beauty", "file": "f", "folder": "d", "precision": "highest"}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    # The card's own rate, as `product_rate` keeps it: 2 TFLOP/s.
    (tmp_path / "product_float32_highest.txt").write_text("2.0\n")
    return Bench("cpu", True, tmp_path, tmp_path / "nowhere")


def record(seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "epoch_seconds": seconds,
        "evaluation_seconds": seconds / 10,
        "training_peak_gib": 1.0,
        "training_reserved_gib": 2.0,
        "evaluation_peak_gib": 0.5,
        "targets": 1000,
        "evaluated_users": 50,
        "epochs": [[seconds, 1000]],
        "epoch_flops": 1e12,
        **more,
    }


@pytest.mark.slow
def test_ours_is_rehearsed_in_a_process_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[Sides] = []
    monkeypatch.setattr(backbones, "SHARED", shared)
    monkeypatch.setattr(backbones, "FILES", {"beauty": FILES["beauty"]})
    steps = {step.name: step for step in STEPS}
    try:
        steps["prepare"].run(bench)
        for name in ("sasrec_d64_beauty", "caser_d64_beauty"):
            steps[name].run(bench)
    finally:
        shared[0].end()
    assert "ours is measured alone" in bench.lines[0]
    assert "tslrec: 60 users of beauty" in bench.lines[1]
    assert bench.figures["tslrec_epoch"]["value"] > 0
    assert bench.figures["floor"]["value"] > 0
    assert not any("ratio" in name for name in bench.figures)

    histories = [line.split()[1:] for line in (bench.folder / "backbones" / "beauty.txt").read_text().splitlines()]
    for name in ("sasrec_d64_beauty", "caser_d64_beauty"):
        kept = json.loads((bench.folder / "backbones" / f"{name}.tslrec.1.json").read_text())
        # The last two items of a user are held out; every other one but the first is a target.
        assert kept["targets"] == sum(len(items) - 3 for items in histories)
        assert kept["evaluated_users"] == len(histories)
        assert len(kept["epochs"]) == EPOCHS - 1
        assert {targets for _, targets in kept["epochs"]} == {kept["targets"]}
        assert len(kept["evaluations"]) == EPOCHS - 1
        assert (kept["device"], kept["precision"]) == ("cpu", "highest")


def test_ratios_are_taken_within_a_round_and_have_their_aims(bench: Bench) -> None:
    rounds = [
        {"tslrec": record(ours), "recbole": record(recbole), "rectools": record(recbole / 2, own_targets=800)}
        for ours, recbole in ((1.0, 10.0), (2.0, 24.0))
    ]
    report(bench, CASE, rounds)
    assert bench.figures["recbole_epoch_ratio"] == {"value": 11.0, "unit": "x", "aim": 8.0}
    assert bench.figures["recbole_evaluation_ratio"] == {"value": 11.0, "unit": "x", "aim": 3.0}
    assert bench.figures["rectools_epoch_ratio"] == {"value": 5.5, "unit": "x"}
    assert bench.figures["tslrec_epoch"] == {"value": 1.5, "unit": "s"}
    assert bench.figures["floor"] == {"value": 0.5, "unit": "s"}
    assert bench.figures["floor_share"]["value"] == pytest.approx(100 / 3, rel=1e-3)
    assert bench.lines == ["RecTools' own epoch has 800 of 1,000 targets; its seconds are scaled to all of them"]


def test_a_round_of_another_precision_reports_training_alone(bench: Bench) -> None:
    report(bench, CASE, [{"tslrec": record(1.0), "recbole": record(6.0)}], "tf32_")
    assert bench.figures == {
        "tf32_tslrec_epoch": {"value": 1.0, "unit": "s"},
        "tf32_recbole_epoch": {"value": 6.0, "unit": "s"},
        "tf32_recbole_epoch_ratio": {"value": 6.0, "unit": "x"},
    }


class FixedSides:
    """Sides that answer with given records; one that is None fails."""

    def __init__(self, folder: Path, records: dict[str, dict[str, Any] | None]) -> None:
        self.folder = folder
        self.records = records
        self.names = tuple(records)

    def ask(self, side: str, *_: Any) -> FixedSides:
        self.asked = side
        return self

    def receive(self, seconds: float) -> dict[str, Any]:
        found = self.records[self.asked]
        if found is None:
            raise SideFailedError(f"{self.asked}: it broke")
        return found


def test_a_peer_that_fails_costs_only_itself(bench: Bench) -> None:
    sides: Any = FixedSides(bench.folder, {"tslrec": record(1.0), "recbole": None, "rectools": record(3.0)})
    found = one_round(bench, sides, CASE, "highest", 0.0, "1")
    assert list(found) == ["tslrec", "rectools"]
    assert bench.lines == ["recbole: it broke"]
    sides.records["tslrec"] = None
    with pytest.raises(SideFailedError, match="tslrec: it broke"):
        one_round(bench, sides, CASE, "highest", 0.0, "1")


def test_sides_that_train_differently_are_not_compared(bench: Bench) -> None:
    sides: Any = FixedSides(bench.folder, {"tslrec": record(1.0), "recbole": record(6.0, targets=900)})
    with pytest.raises(RuntimeError, match="the sides do not train and rank the same"):
        one_round(bench, sides, CASE, "highest", 0.0, "1")


def test_the_budgets_leave_time_for_the_other_parts() -> None:
    assert sum(step.seconds for step in STEPS) < 170
    assert [step.name for step in STEPS[1:]] == [
        "sasrec_d64_beauty",
        "gru4rec_d64_beauty",
        "caser_d64_beauty",
        "fmlp_d64_beauty",
        "sasrec_d256_beauty",
        "sasrec_d64_ml1m",
    ]


def test_made_up_files_have_both_layouts_of_the_same_histories() -> None:
    lines = [line.split() for line in made_up("user_lines").splitlines()]
    pairs = [tuple(line.split()) for line in made_up("pair_lines").splitlines()]
    assert pairs == [(user, item) for user, *items in lines for item in items]


ECHO = """
import json, os, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    while "until" in asked and not os.path.exists(asked["until"]):
        time.sleep(0.01)
    if "exit" in asked:
        sys.exit(asked["exit"])
    print(json.dumps(asked), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    (tmp_path / "card_side_echo.py").write_text(ECHO)
    monkeypatch.setattr(card_workers, "HERE", tmp_path)
    return Worker("echo", "cpu", None, tmp_path / "log")


def test_a_process_answers_until_it_dies_and_is_started_again(worker: Worker) -> None:
    try:
        worker.send({"number": 1})
        assert worker.receive(60) == {"number": 1}
        worker.send({"exit": 3})
        with pytest.raises(SideFailedError, match="echo: its process has ended"):
            worker.receive(60)
        worker.send({"error": "it broke"})
        with pytest.raises(SideFailedError, match="echo: it broke"):
            worker.receive(60)
        worker.send({"number": 2})
        assert worker.receive(60) == {"number": 2}
    finally:
        worker.end()


def test_a_late_answer_is_not_taken_for_the_next_one(worker: Worker, tmp_path: Path) -> None:
    try:
        worker.send({"number": 1, "until": str(tmp_path / "now")})
        assert not worker.ready(0.0)
        (tmp_path / "now").touch()
        worker.send({"number": 2})
        assert worker.receive(60) == {"number": 2}
        worker.send({"number": 3})
        assert worker.ready(60)
        assert worker.receive(60) == {"number": 3}
    finally:
        worker.end()


def test_a_process_that_takes_too_long_is_ended(worker: Worker) -> None:
    worker.send({"until": "/no/such/file"})
    with pytest.raises(SideFailedError, match="echo: no answer within"):
        worker.receive(0.1)
    assert worker.process is None


def test_what_goes_wrong_in_a_request_is_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    # A request changes it for its process; afterwards it is what it was.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)

    def broken(request: Any) -> dict[str, Any]:
        assert request.case.hidden_size == 16
        raise ValueError("no such thing\nand more")

    assert answer(broken, REQUEST, torch.device("cpu")) == {"error": "ValueError: no such thing"}


def test_tiny_cases_keep_model_and_data() -> None:
    tiny, real = card_case(CASE.name, tiny=True), card_case(CASE.name, tiny=False)
    assert real == CASE
    assert (tiny.model, tiny.data, tiny.dropout) == (CASE.model, CASE.data, CASE.dropout)
    assert tiny.max_len < CASE.max_len


def test_the_first_span_warms_up_and_seconds_are_scaled_to_all_targets() -> None:
    spans = Spans(torch.device("cpu"))
    spans.training = [Span(9.0, 3.0, 4.0, 10), Span(1.0, 1.0, 1.0, 50), Span(3.0, 1.0, 1.0, 50)]
    found = card_record(
        spans,
        targets=100,
        evaluations=[Span(0.5, 0.25, 1.0)],
        evaluated_users=7,
        model=torch.nn.Linear(2, 3),
    )
    assert found["epoch_seconds"] == pytest.approx(4.0)
    assert found["epochs"] == [[1.0, 50], [3.0, 50]]
    # Graphs are captured in the warm-up; what they hold counts.
    assert (found["training_peak_gib"], found["training_reserved_gib"]) == (3.0, 4.0)
    assert (found["evaluation_seconds"], found["evaluation_peak_gib"]) == (0.5, 0.25)
    assert (found["parameters"], found["evaluated_users"]) == (9, 7)


def test_a_span_is_measured_between_begin_and_end() -> None:
    spans = Spans(torch.device("cpu"))
    spans.begin()
    first = spans.end(5)
    assert (first.targets, first.peak_gib, first.reserved_gib) == (5, 0.0, 0.0)
    assert first.seconds >= 0


NEWER = """
import newer_packages
newer_packages.install()
import numpy as np, pandas as pd
assert np.float_ is np.float64 and np.complex_ is np.complex128 and np.unicode_ is np.str_
assert list(pd.unique(("b", "a", "b"))) == ["b", "a"]
assert list(pd.unique(pd.Series([3, 1, 3]))) == [3, 1]
assert pd.Series(["a"]).dtype == object
print("as before")
"""


def test_the_peers_find_numpy_and_pandas_as_they_know_them() -> None:
    pytest.importorskip("pandas", reason="pandas is a package of the peers, not of the project")
    done = subprocess.run(
        [sys.executable, "-c", NEWER],
        cwd=Path(card_workers.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "as before\n", done.stderr


def test_every_side_has_a_program() -> None:
    for side in SIDES:
        assert (Path(card_workers.__file__).parent / f"card_side_{side}.py").is_file()
