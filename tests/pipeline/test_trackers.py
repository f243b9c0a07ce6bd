"""What Weights & Biases and TensorBoard are told of a run, read back from the files that they write."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from support.in_process import train_here
from support.inventories import states
from support.runs import SMALL, manifests, result_of, train_until_killed
from support.wandb_file import OfflineRun, finished

pytestmark = pytest.mark.slow

RUN = ["method=ci", *SMALL, "training.max_epochs=2", "training.batch_size=64", "trainer.checkpoint_seconds=0"]
WANDB = ["logger=wandb", "logger.project=own"]
CELL = "sweeps/seed-method-0123456789ab/cells/0003.json"


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine where nobody has logged in."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def kill_in_the_backbone(folder: Path, cell: str) -> None:
    """Starts the run of a cell of a sweep, which is killed after the backbone's sixth optimizer step."""
    place = "backbone/*.checkpoints/step-*"
    train_until_killed(*RUN, *WANDB, folder=folder, at=place, step=6, environment={"TSLREC_CELL": cell})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OfflineRun, OfflineRun]:
    """A cell of a sweep that was killed, and the same once it was started again."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TSLREC_CELL", str(folder / "artifacts" / CELL))
        patched.setenv("HOME", str(folder))
        kill_in_the_backbone(folder, str(folder / "artifacts" / CELL))
        (killed,) = folder.glob("artifacts/wandb/offline-run-*")
        # Folders are named by the second.
        time.sleep(1.1)
        ended = train_here(*RUN, *WANDB, folder=folder)
    assert ended.code == 0, ended.err
    assert "ci backbone: resumes from step" in ended.out
    (again,) = set(folder.glob("artifacts/wandb/offline-run-*")) - {killed}
    first, second = (next(each.glob("*.wandb")) for each in (killed, again))
    return folder, OfflineRun(first), OfflineRun(finished(second))


Runs = tuple[Path, OfflineRun, OfflineRun]


def test_a_run_that_was_killed_goes_on_under_its_id(runs: Runs) -> None:
    _, killed, again = runs
    assert killed.id == again.id == again.run.run_id
    assert len(again.id) == 12
    assert killed.exit_code is None
    assert again.exit_code == 0


def test_sweeps_are_groups_methods_job_types_and_seeds_tags(runs: Runs) -> None:
    again = runs[2].run
    assert again.project == "own"
    assert again.run_group == "seed-method-0123456789ab"
    assert again.job_type == "ci"
    assert set(again.tags) == {"synthetic", "sasrec", "small", "seed0"}
    assert again.display_name == "ci-synthetic-sasrec-small-seed0"


def test_the_configuration_is_the_runs(runs: Runs) -> None:
    config = runs[2].config
    assert config["method"]["name"] == "ci"
    assert config["model"]["hidden_size"] == 8
    assert config["training"]["max_epochs"] == 2
    assert config["seed"] == 0


def test_each_stage_has_curves_of_its_own_that_begin_at_its_own_first_step(runs: Runs) -> None:
    again = runs[2]
    for stage in ("backbone", "fusion"):
        for metric, largest in (("train/loss", 10), ("validation/masked/NDCG@10", 1)):
            curve = again.curve(f"{stage}/{metric}", f"{stage}/step")
            # Two epochs of nine steps; the killed run may have told of the first of the backbone's.
            assert curve.keys() in ({8, 17}, {17})
            assert stage == "backbone" or 8 in curve
            assert all(0 < value < largest for value in curve.values())


def test_the_closing_row_is_the_table_and_the_summary(runs: Runs) -> None:
    folder, _, again = runs
    metrics = result_of(folder)["results"][-1]["metrics"]
    for name in ("test/masked/NDCG@10", "test/unmasked/HR@5"):
        assert again.summary[name] == metrics[name]
    (row,) = (row for row in again.rows if "final.path" in row)
    (file,) = folder.glob(f"artifacts/wandb/offline-run-*/files/{row['final.path']}")
    table = json.loads(file.read_text())
    values = dict(zip(table["columns"], *table["data"], strict=True))
    assert (values["method"], values["seed"]) == ("ci", 0)
    assert values["test/masked/HR@10"] == metrics["test/masked/HR@10"]


def test_stage_results_are_artifacts_by_reference(runs: Runs) -> None:
    folder, _, again = runs
    results = [each for each in again.artifacts if each.type != "run_table"]
    assert [each.type for each in results] == ["backbone", "preferences", "fusion"]
    for each in results:
        (manifest,) = (folder / "artifacts" / each.type).glob("*/manifest.json")
        files = [path for path in manifest.parent.rglob("*") if path.is_file()]
        assert {entry.ref for entry in each.manifest.contents} == {path.as_uri() for path in files}
        assert each.name == f"{each.type}-{manifest.parent.name[-12:]}"


def test_the_files_of_a_tracker_are_no_stage_results(runs: Runs) -> None:
    folder, *_ = runs
    assert set(states(folder / "artifacts")) == {"synthetic"}


def test_a_run_that_fails_ends_as_failed_and_an_account_that_is_wanted_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = train_here("method=base", *RUN[1:], "logger=wandb", "training.learning_rate=1e30", folder=tmp_path)
    assert "not finite" in ended.refusal
    (path,) = tmp_path.glob("artifacts/wandb/offline-run-*/*.wandb")
    failed = OfflineRun(finished(path))
    assert failed.exit_code == 1
    assert failed.run.run_group == "base"
    monkeypatch.setenv("WANDB_MODE", "online")
    line = train_here("method=base", *RUN[1:], "logger=wandb", folder=tmp_path).refusal
    assert "logger=wandb: " in line
    assert "WANDB_MODE=offline" in line


def test_tensorboard_holds_the_curves_the_closing_row_and_the_configuration(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = ["method=tslrec", *RUN[1:], "logger=tensorboard"]
    assert train_here(*run, folder=tmp_path).code == 0
    (folder,) = (tmp_path / "artifacts" / "tensorboard").iterdir()
    assert folder.name.startswith("tslrec-synthetic-sasrec-small-seed0-")

    def read(name: str) -> Any:
        events = accumulator.EventAccumulator(str(folder / name))
        events.Reload()
        return events

    assert {path.name for path in folder.iterdir()} == {"backbone", "sft", "fusion", "result"}
    for stage, metric in (("backbone", "train/loss"), ("sft", "loss"), ("fusion", "validation/masked/NDCG@10")):
        assert len(read(stage).Scalars(metric)) >= 2
    metrics = result_of(tmp_path)["results"][-1]["metrics"]
    result = read("result")
    (final,) = result.Scalars("final/test/masked/NDCG@10")
    assert final.value == pytest.approx(metrics["test/masked/NDCG@10"])
    (config,) = result.Tensors("config/text_summary")
    assert b'"num_clusters": 4' in config.tensor_proto.string_val[0]
    assert set(states(tmp_path / "artifacts")) == {"synthetic"}


def test_tensorboard_that_is_not_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else found(name))
    line = train_here("method=base", *RUN[1:], "logger=tensorboard", folder=tmp_path).refusal
    assert "pip install 'tslrec[tensorboard]'" in line
    assert not manifests(tmp_path)
