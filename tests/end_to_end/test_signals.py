"""Ctrl-C, SIGTERM and a closed terminal end `train.py` in one line, wherever it is; the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from support.inventories import states
from support.runs import SMALL, manifests, run_environment, train
from support.waiting import HANG_SECONDS, wait_until
from tslrec.cli.main import main
from tslrec.pipeline.inventory import State

RUN = ["method=tslrec", *SMALL, "training.batch_size=16", "sft.batch_size=4"]
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stopped_at(folder: Path, number: int, published: str, moment: str = "before", step: int = 0) -> str:
    """Runs `train.py` until it signals itself while it publishes something; returns the line with which it ended."""
    script = CHECKOUT / "tests" / "support" / "killed_run.py"
    run = subprocess.run(
        [sys.executable, str(script), published, str(step), moment, *RUN, "trainer.checkpoint_seconds=0"],
        cwd=folder,
        env={**run_environment(folder), "TSLREC_TEST_SIGNAL": str(int(number))},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert run.returncode == 128 + number, run.stderr
    (line,) = run.stderr.splitlines()
    assert len(line) <= 300
    return line


def test_a_run_that_is_stopped_in_each_stage_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = stopped_at(tmp_path, signal.SIGTERM, "data/*")
    assert line == "stopped by SIGTERM before it was done; run the same command again"
    line = stopped_at(tmp_path, signal.SIGINT, "backbone/*.checkpoints/step-*", "after", step=3)
    assert line.startswith("tslrec backbone: stopped by SIGINT at step ")
    assert line.endswith("; the same command goes on from its last checkpoint")
    line = stopped_at(tmp_path, signal.SIGHUP, "preferences/*")
    assert line == "tslrec preferences: stopped by SIGHUP; the same command starts it anew"
    line = stopped_at(tmp_path, signal.SIGINT, "sft/*.checkpoints/step-*", "before", step=2)
    assert "sft: stopped by SIGINT at step " in line
    before = manifests(tmp_path)
    main(["clean", str(tmp_path / "artifacts"), "--yes"])
    assert "an interrupted run can be resumed" in capsys.readouterr().out
    assert manifests(tmp_path) == before
    line = stopped_at(tmp_path, signal.SIGTERM, "augment/*")
    assert line.startswith("tslrec augment: stopped by SIGTERM; ")
    run = train(*RUN, "trainer.checkpoint_seconds=0", folder=tmp_path)
    assert run.returncode == 0, run.stderr
    after = manifests(tmp_path)
    assert {name: after[name] for name in before} == before
    assert set(states(tmp_path / "artifacts").values()) == {State.DONE}
    assert not list((tmp_path / "artifacts" / "unfinished").glob("*.json"))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_to_the_whole_group_in_a_training_writes_a_checkpoint(tmp_path: Path, number: int) -> None:
    forever = ["training.max_epochs=100000", "training.patience=100000"]
    process = subprocess.Popen(
        [sys.executable, str(CHECKOUT / "train.py"), *RUN, *forever, "method=base"],
        cwd=tmp_path,
        env=run_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        log = "artifacts/backbone/*.partial/log/metrics.csv"
        wait_until(lambda: list(tmp_path.glob(log)), "the training logs its first epoch", process)
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 128 + number
    assert "Traceback" not in output
    (line,) = errors.splitlines()
    assert f"stopped by {signal.Signals(number).name} at step " in line
    assert list(tmp_path.glob("artifacts/backbone/*.checkpoints/step-*/manifest.json"))


def test_clean_beside_a_run_takes_nothing_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, str(CHECKOUT / "train.py"), *RUN, "sft.max_epochs=30", "trainer.checkpoint_seconds=0"],
        cwd=tmp_path,
        env=run_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        checkpoints = "artifacts/sft/*.checkpoints/step-*"
        wait_until(lambda: list(tmp_path.glob(checkpoints)), "the adapter is trained", process)
        process.send_signal(signal.SIGSTOP)
        before = manifests(tmp_path)
        main(["clean", str(tmp_path / "artifacts"), "--yes", "--interrupted"])
        assert "a run is at work, begun " in capsys.readouterr().out
        assert manifests(tmp_path) == before
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0, errors
