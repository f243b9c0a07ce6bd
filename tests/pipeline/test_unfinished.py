"""`tslrec clean` keeps what runs at work and interrupted runs build on, and a run that begins waits for its end."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from support.inventories import states
from support.waiting import HANG_SECONDS
from tslrec.cli.main import main
from tslrec.pipeline.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.pipeline.inventory import State
from tslrec.pipeline.unfinished import WorkRecord, no_run_begins, unfinished_runs
from tslrec.stages.registry import code_version
from tslrec.system.errors import StoppedError, UserError

FACTS = {"created": "2026-01-02T03:04:05+00:00", "wall_seconds": 12.0, "peak_memory_gib": 0.5}
SETTINGS = {"seed": 7}


def recipe(stage: str, label: str, **inputs: str) -> Recipe:
    return Recipe(stage, label, {"label": label}, inputs, version=code_version(stage) or 1)


def make(store: ArtifactStore, wanted: Recipe) -> Artifact:
    def compute(folder: Path) -> dict[str, Any]:
        (folder / "numbers.json").write_text("{}")
        return {}

    return store.produce(wanted, compute, lambda: dict(FACTS))


class KilledError(Exception):
    """Ends a run as a kill would, as far as its record goes."""


def half_a_run(root: Path, work: WorkRecord) -> Recipe:
    """The first stages of a run, and what its next stage will make; another run's data lie beside them."""
    store = ArtifactStore(root, need=work.need)
    make(ArtifactStore(root), recipe("data", "other"))
    data = make(store, recipe("data", "ml"))
    backbone = make(store, recipe("backbone", "sasrec", data=data.key))
    clusters = make(store, recipe("preferences", "k8", backbone=backbone.key))
    return recipe("sft", "tiny", backbone=backbone.key, preferences=clusters.key)


@contextmanager
def at_work(root: Path) -> Iterator[WorkRecord]:
    """A run that is making its adapter."""
    with WorkRecord(root, "1", True, SETTINGS) as work:
        wanted = half_a_run(root, work)
        work.need([wanted.key])
        folder = ArtifactStore(root).folder(wanted)
        folder.with_name(folder.name + ".1.partial").mkdir(parents=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            yield work


def interrupted(root: Path) -> None:
    """A run that was killed while it made its adapter."""
    with pytest.raises(KilledError), at_work(root):
        raise KilledError


def test_what_a_run_at_work_builds_on_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with at_work(tmp_path):
        for options in ([], ["--yes"], ["--yes", "--interrupted"]):
            main(["clean", str(tmp_path), *options])
            assert "a run is at work, begun " in capsys.readouterr().out
        assert states(tmp_path) == {
            "ml": State.DONE,
            "sasrec": State.DONE,
            "k8": State.DONE,
            "tiny": State.RUNNING,
        }


def test_what_an_interrupted_run_made_is_kept_until_it_is_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path)
    main(["clean", str(tmp_path), "--yes"])
    assert "an interrupted run can be resumed, begun " in capsys.readouterr().out
    assert set(states(tmp_path)) == {"ml", "sasrec", "k8", "tiny"}
    main(["clean", str(tmp_path), "--interrupted"])
    assert "Nothing was removed" in capsys.readouterr().out
    main(["clean", str(tmp_path), "--interrupted", "--yes"])
    assert states(tmp_path) == {}
    assert unfinished_runs(tmp_path) == []


def test_a_finished_run_leaves_no_record_of_itself_nor_of_its_interrupted_beginning(tmp_path: Path) -> None:
    interrupted(tmp_path)
    other = WorkRecord(tmp_path, "2", True, {"seed": 8})
    other.need(["b" * 64])
    other.__exit__(KilledError, KilledError(), None)
    assert [each.running for each in unfinished_runs(tmp_path)] == [False, False]
    with WorkRecord(tmp_path, "3", True, SETTINGS) as again:
        again.need(["a" * 64])
        assert sorted(each.running for each in unfinished_runs(tmp_path)) == [False, False, True]
    assert [each.keys for each in unfinished_runs(tmp_path)] == [{"b" * 64}]


def end_before_a_stage(root: Path, error: Exception) -> None:
    """A run that has read its data and planned its stages."""
    with WorkRecord(root, "2", True, SETTINGS) as work:
        make(ArtifactStore(root, need=work.need), recipe("data", "ml"))
        work.need(["a" * 64])
        assert any(each.running for each in unfinished_runs(root))
        raise error


def test_a_run_that_is_refused_before_its_first_stage_leaves_no_record(tmp_path: Path) -> None:
    interrupted(tmp_path)
    with pytest.raises(UserError, match="60 items"):
        end_before_a_stage(tmp_path, UserError("preferences.num_clusters=100: more than the 60 items"))
    # What was interrupted before can be resumed as before.
    assert [each.place for each in unfinished_runs(tmp_path)] == [f"{socket.gethostname()}, process {os.getpid()}"]
    assert not list((tmp_path / "unfinished").glob("*-2.*"))


@pytest.mark.parametrize("error", [UserError("the loss is not finite"), StoppedError("stopped", 2), KilledError()])
def test_a_run_that_ends_in_a_stage_can_be_resumed(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), at_work(tmp_path):
        raise error
    assert [each.running for each in unfinished_runs(tmp_path)] == [False]


def test_a_run_that_is_stopped_before_its_first_stage_can_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        end_before_a_stage(tmp_path, StoppedError("stopped", 2))
    assert len(unfinished_runs(tmp_path)) == 1


def test_a_run_that_needs_nothing_yet_and_other_ranks_record_nothing(tmp_path: Path) -> None:
    with WorkRecord(tmp_path, "1", True, SETTINGS), WorkRecord(tmp_path, "1", False, SETTINGS) as other:
        other.need(["a" * 64])
        assert list(tmp_path.iterdir()) == []


def test_a_run_that_begins_while_somebody_cleans_waits_for_the_end(tmp_path: Path) -> None:
    begins, needed = threading.Event(), threading.Event()

    def begin() -> None:
        with WorkRecord(tmp_path, "1", True, SETTINGS) as work:
            begins.set()
            work.need(["a" * 64])
            needed.set()

    thread = threading.Thread(target=begin)
    with no_run_begins(tmp_path):
        thread.start()
        assert begins.wait(HANG_SECONDS)
        assert unfinished_runs(tmp_path) == []
        assert not needed.is_set()
    thread.join(HANG_SECONDS)
    assert needed.is_set()


def test_what_a_program_without_records_works_on_keeps_every_finished_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(ArtifactStore(tmp_path), recipe("backbone", "sasrec"))
    folder = ArtifactStore(tmp_path).folder(recipe("sft", "tiny"))
    folder.with_name(folder.name + ".1.partial").mkdir(parents=True)
    with FileLock(folder.with_name(folder.name + ".lock")):
        main(["clean", str(tmp_path), "--yes"])
        assert "every finished result is kept" in capsys.readouterr().out
        assert states(tmp_path) == {"sasrec": State.DONE, "tiny": State.RUNNING}
    main(["clean", str(tmp_path), "--yes"])
    assert states(tmp_path) == {}


def test_a_checkpoint_is_kept_without_a_record_too(tmp_path: Path) -> None:
    checkpoints = ArtifactStore(tmp_path).checkpoints(recipe("sft", "tiny"))
    (checkpoints / "step-000000012").mkdir(parents=True)
    (checkpoints / "step-000000012" / "state.json").write_text("{}")
    main(["clean", str(tmp_path), "--yes"])
    assert states(tmp_path) == {"tiny": State.STOPPED}
    main(["clean", str(tmp_path), "--yes", "--interrupted"])
    assert states(tmp_path) == {}


def test_a_record_that_cannot_be_read_stops_the_cleaning(tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "abc-1.json").write_text("{")
    with pytest.raises(UserError, match=r"abc-1.json: not the record of a run .*delete it"):
        unfinished_runs(tmp_path)


def test_a_folder_without_artifacts_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clicks.csv").write_text("user,item")
    main(["clean", str(tmp_path), "--yes"])
    assert "Nothing" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["clicks.csv"]
