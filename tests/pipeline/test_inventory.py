"""`tslrec status` and `tslrec clean`: what is seen of an artifacts folder, and what is removed from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from support.inventories import states
from tslrec.cli.main import main
from tslrec.pipeline.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.pipeline.inventory import State, inventory, left_over, remove
from tslrec.stages.registry import DATA_VERSION, code_version
from tslrec.system.errors import UserError
from tslrec.system.files import write_json

BACKBONE_VERSION = code_version("backbone") or 0
FACTS = {"created": "2026-01-02T03:04:05+00:00", "wall_seconds": 12.0, "peak_memory_gib": 0.5}


def recipe(stage: str, label: str, version: int | None = None, **inputs: str) -> Recipe:
    return Recipe(stage, label, {"label": label}, inputs, version=version or code_version(stage) or 1)


def make(root: Path, wanted: Recipe) -> Artifact:
    def compute(folder: Path) -> dict[str, Any]:
        (folder / "numbers.json").write_text("{}")
        return {}

    return ArtifactStore(root).produce(wanted, compute, lambda: dict(FACTS))


def begin(root: Path, wanted: Recipe, step: int | None = None) -> Path:
    """A result that was not finished."""
    store = ArtifactStore(root)
    folder = store.folder(wanted)
    partial = folder.with_name(folder.name + ".127.0.0.1-29500.partial")
    partial.mkdir(parents=True)
    if step is not None:
        (store.checkpoints(wanted) / f"step-{step:09d}").mkdir(parents=True)
    return folder


def record(root: Path, *artifacts: Artifact) -> None:
    """The result of a run that used some artifacts."""
    folder = root / "runs" / "base"
    folder.mkdir(parents=True)
    write_json(
        folder / "result.json", {"results": [{"stages": {str(i): {"key": a.key} for i, a in enumerate(artifacts)}}]}
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run's backbone and its data, and a good deal else."""
    root = tmp_path / "artifacts"
    data = make(root, recipe("data", "beauty"))
    used = make(root, recipe("backbone", "used", data=data.key))
    make(root, recipe("backbone", "unused", data=data.key))
    make(root, recipe("backbone", "old", BACKBONE_VERSION - 1, data=data.key))
    damaged = make(root, recipe("backbone", "damaged", data=data.key))
    (damaged.folder / "numbers.json").write_text("[]")
    begin(root, recipe("backbone", "killed"), step=1234)
    begin(root, recipe("fusion", "failed"))
    record(root, used)
    return root


def test_each_result_is_told_by_what_became_of_it(root: Path) -> None:
    wanted = {
        "used": State.DONE,
        "unused": State.DONE,
        "damaged": State.DONE,
        "old": State.STALE,
        "killed": State.STOPPED,
        "failed": State.STOPPED,
        "beauty": State.DONE,
    }
    assert states(root) == wanted
    assert states(root, check_files=True) == {**wanted, "damaged": State.DAMAGED}


def test_what_another_version_of_the_code_made_is_stale_and_computed_again(root: Path) -> None:
    old = recipe("fusion", "twice", 1)
    make(root, old)
    make(root, recipe("fusion", "twice"))
    found = {each.name: each.state for each in inventory(root) if each.name.startswith("twice")}
    assert len(found) == 2
    assert found.pop(ArtifactStore(root).folder(old).name) is State.STALE
    assert list(found.values()) == [State.DONE]


def test_what_is_running_is_told_by_its_lock(root: Path) -> None:
    running = recipe("backbone", "running")
    folder = begin(root, running)
    with FileLock(folder.with_name(folder.name + ".lock")):
        assert states(root)["running"] is State.RUNNING
        assert "running" not in {each.name.split("-")[0] for each in left_over(root, inventory(root))}
    assert states(root)["running"] is State.STOPPED


def test_only_what_no_run_refers_to_is_left_over(root: Path) -> None:
    left = {each.name.split("-")[0] for each in left_over(root, inventory(root))}
    # The data were not used by the run itself, but its backbone was made from them.
    assert left == {"unused", "damaged", "old", "killed", "failed"}


def test_an_extended_store_stays_with_what_it_was_made_from(root: Path) -> None:
    earlier = make(root, recipe("augment", "earlier"))
    make(root, recipe("augment", "extended", augment=earlier.key))
    assert {"earlier", "extended"}.isdisjoint(each.name.split("-")[0] for each in left_over(root, inventory(root)))


def test_clean_removes_it_only_if_told_to(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(root.rglob("*"))
    main(["clean", str(root)])
    assert "Nothing was removed" in capsys.readouterr().out
    assert sorted(root.rglob("*")) == before
    main(["clean", str(root), "--yes"])
    assert states(root, check_files=True) == {"used": State.DONE, "beauty": State.DONE}
    assert not [path for path in root.rglob("*") if path.name.endswith((".partial", ".checkpoints"))]
    assert (root / "runs" / "base" / "result.json").is_file()
    capsys.readouterr()
    main(["clean", str(root), "--yes"])
    assert capsys.readouterr().out == "Nothing\n"


def test_what_somebody_began_in_the_meantime_is_left_alone(root: Path) -> None:
    (killed,) = (each for each in inventory(root) if each.name.startswith("killed"))
    with FileLock(killed.folders[0].parent / f"{killed.name}.lock"):
        assert not remove(killed)
    assert killed.folders[0].is_dir()
    assert remove(killed)
    assert not killed.folders[0].exists()


def test_status_prints_a_line_for_each_and_the_sum(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    main(["status", str(root), "--json", str(root / "status.json")])
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 9
    assert "a checkpoint of step 1,234" in printed
    assert f"version {BACKBONE_VERSION - 1}, now {BACKBONE_VERSION}" in printed
    assert "4 done, 2 stopped, 1 stale; " in printed
    written = json.loads((root / "status.json").read_text())
    assert {each["stage"] for each in written} == {"backbone", "data", "fusion"}


def test_the_version_is_read_as_python_would(root: Path) -> None:
    assert BACKBONE_VERSION > 1
    assert code_version("data") == DATA_VERSION
    assert code_version("no_stage") is None


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder; name the one"):
        inventory(tmp_path / "nowhere")


def test_a_run_that_cannot_be_read_stops_the_cleaning(root: Path) -> None:
    (root / "runs" / "base" / "result.json").write_text("{")
    with pytest.raises(UserError, match=r"result.json: not the result of a run"):
        left_over(root, inventory(root))


def test_results_of_a_stage_that_was_removed_are_listed_and_cleaned_like_others(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "runs")
    assert code_version("attic") is None
    of_run, left = (make(root, recipe("attic", name)) for name in ("needed", "forgotten"))
    record(root, of_run, make(root, recipe("fusion", "last", attic=of_run.key)))
    killed = begin(root, recipe("attic", "killed"), step=3)
    found = {each.name: each.state for each in inventory(root, check_files=True) if each.stage == "attic"}
    assert found == {of_run.folder.name: State.DONE, left.folder.name: State.DONE, killed.name: State.STOPPED}
    main(["status", str(root)])
    assert "attic" in capsys.readouterr().out
    main(["clean", str(root), "--yes"])
    assert [each.name for each in inventory(root) if each.stage == "attic"] == [of_run.folder.name]
