"""Stage results on disk: complete or absent, verified, computed once."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from support.waiting import HANG_SECONDS, wait_until
from tslrec.pipeline.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.system.errors import UserError
from tslrec.system.manifests import MANIFEST, POLL_SECONDS

RECIPE = Recipe(
    stage="backbone", label="small", config={"rate": 1e-3, "model": {"size": 8}}, inputs={"data": "d"}, seed=3
)


def writing(text: str) -> Callable[[Path], dict[str, Any]]:
    def compute(folder: Path) -> dict[str, Any]:
        (folder / "inner").mkdir()
        (folder / "inner" / "weights.txt").write_text(text)
        return {"NDCG@10": 0.5}

    return compute


def not_computed(folder: Path) -> dict[str, Any]:
    raise AssertionError("computed again")


def no_facts() -> dict[str, Any]:
    return {"wall_seconds": 1.0}


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"rate": 1e-3, "model": {"size": 9}}},
        {"inputs": {"data": "e"}},
        {"seed": 4},
        {"version": 2},
        {"stage": "fusion"},
    ],
)
def test_whatever_determines_a_result_changes_its_key(change: dict[str, Any]) -> None:
    assert replace(RECIPE, **change).key != RECIPE.key


def test_the_label_and_the_order_of_keys_do_not_change_the_key() -> None:
    assert replace(RECIPE, label="other").key == RECIPE.key
    assert replace(RECIPE, config={"model": {"size": 8}, "rate": 1e-3}).key == RECIPE.key


def test_a_finished_result_is_reused(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    first = store.produce(RECIPE, writing("abc"), no_facts)
    again = store.produce(RECIPE, not_computed, no_facts)
    assert not first.reused
    assert again.reused
    assert again.metrics == {"NDCG@10": 0.5}
    assert (again.folder / "inner" / "weights.txt").read_text() == "abc"


def test_a_computation_that_fails_leaves_nothing_finished_and_is_done_anew(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def failing(folder: Path) -> dict[str, Any]:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        store.produce(RECIPE, failing, no_facts)
    assert store.find(RECIPE) is None
    artifact = store.produce(RECIPE, writing("whole"), no_facts)
    assert not (artifact.folder / "half.txt").exists()


@pytest.mark.parametrize("damage", ["flip", "remove", "truncate"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    store = ArtifactStore(tmp_path)
    path = store.produce(RECIPE, writing("abc"), no_facts).folder / "inner" / "weights.txt"
    match damage:
        case "flip":
            path.write_text("abd")
        case "remove":
            path.unlink()
        case "truncate":
            path.write_text("ab")
    with pytest.raises(UserError, match=r"inner/weights\.txt.*delete"):
        store.find(RECIPE)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": 1}'])
def test_an_unreadable_manifest_is_named(tmp_path: Path, content: str) -> None:
    store = ArtifactStore(tmp_path)
    (store.produce(RECIPE, writing("abc"), no_facts).folder / MANIFEST).write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json.*delete"):
        store.find(RECIPE)


def test_the_manifest_says_what_determined_the_result(tmp_path: Path) -> None:
    folder = ArtifactStore(tmp_path).produce(RECIPE, writing("abc"), no_facts).folder
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["config"] == {"rate": 1e-3, "model": {"size": 8}}
    assert manifest["inputs"] == {"data": "d"}
    assert manifest["seed"] == 3
    assert manifest["files"]["inner/weights.txt"]["bytes"] == 3
    assert manifest["wall_seconds"] == 1.0


def test_a_half_copied_folder_is_named(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    (store.produce(RECIPE, writing("abc"), no_facts).folder / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"manifest\.json: not a readable manifest.*delete"):
        store.find(RECIPE)


@pytest.mark.parametrize("change", [{"key": "0" * 64}, {"inputs": {"data": "e"}}, {"seed": 4}, {"config": {}}])
def test_a_manifest_of_another_result_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    path = store.produce(RECIPE, writing("abc"), no_facts).folder / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=r"manifest\.json: made (by key|from something else).*delete the folder"):
        store.find(RECIPE)


def test_another_version_of_the_code_computes_its_own_result_and_leaves_the_old_one_as_it_is(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    old, new = replace(RECIPE, version=1), replace(RECIPE, version=2)
    store.produce(old, writing("old"), no_facts)
    assert not store.produce(new, writing("new"), no_facts).reused
    for recipe, text in ((old, "old"), (new, "new")):
        artifact = store.produce(recipe, not_computed, no_facts)
        assert (artifact.folder / "inner" / "weights.txt").read_text() == text


def counted(root: str) -> None:
    def compute(folder: Path) -> dict[str, Any]:
        with (Path(root) / "computed").open("a") as file:
            file.write("x")
        return {}

    ArtifactStore(Path(root)).produce(RECIPE, compute, no_facts)


def test_several_processes_compute_a_result_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=counted, args=(str(tmp_path),)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(HANG_SECONDS)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    assert (tmp_path / "computed").read_text() == "x"


def computing_until_killed(root: str) -> None:
    def compute(folder: Path) -> dict[str, Any]:
        (folder / "half.txt").write_text("half")
        time.sleep(HANG_SECONDS)
        return {}

    ArtifactStore(Path(root), job="killed").produce(RECIPE, compute, no_facts)


def test_who_waits_for_a_process_that_is_killed_computes_the_result_itself(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    killed = context.Process(target=computing_until_killed, args=(str(tmp_path),), daemon=True)
    killed.start()
    wait_until(lambda: list(tmp_path.glob("backbone/*.partial/half.txt")), "the first process computes")
    waiting = context.Process(target=counted, args=(str(tmp_path),))
    waiting.start()
    waiting.join(4 * POLL_SECONDS)
    assert waiting.is_alive()
    killed.kill()
    waiting.join(HANG_SECONDS)
    assert waiting.exitcode == 0
    assert (tmp_path / "computed").read_text() == "x"
    artifact = ArtifactStore(tmp_path).produce(RECIPE, not_computed, no_facts)
    assert not (artifact.folder / "half.txt").exists()
    assert not list(tmp_path.glob("backbone/*.partial"))


@dataclass
class Follower:
    """A process of the same job that is not the first, as a thread: what it did, and what came of it."""

    root: Path
    together: bool = True
    took_part_in: list[str] = field(default_factory=list)
    artifact: Artifact | None = None
    error: UserError | None = None

    def start(self) -> threading.Thread:
        thread = threading.Thread(target=self.follow)
        thread.start()
        return thread

    def follow(self) -> None:
        store = ArtifactStore(self.root, job="j", first=False)
        try:
            self.artifact = store.produce(RECIPE, self.take_part, no_facts, together=self.together)
        except UserError as error:
            self.error = error

    def take_part(self, folder: Path) -> dict[str, Any]:
        self.took_part_in.append(folder.name)
        return {"NDCG@10": 0.1}


@pytest.mark.parametrize("together", [True, False])
def test_another_process_of_the_job_takes_part_where_it_should_and_writes_nothing(
    tmp_path: Path, together: bool
) -> None:
    follower = Follower(tmp_path, together)
    thread = follower.start()

    def computing(folder: Path) -> dict[str, Any]:
        wait_until(lambda: not together or follower.took_part_in, "the other process takes part")
        return writing("by the first")(folder)

    first = ArtifactStore(tmp_path, job="j").produce(RECIPE, computing, no_facts, together=together)
    thread.join(HANG_SECONDS)
    assert follower.took_part_in == ([f"{first.folder.name}.j.partial"] if together else [])
    assert follower.artifact is not None
    assert follower.artifact.manifest == first.manifest


def test_another_process_of_the_job_takes_no_part_in_what_is_found(tmp_path: Path) -> None:
    ArtifactStore(tmp_path, job="earlier").produce(RECIPE, writing("abc"), no_facts)
    follower = Follower(tmp_path)
    follower.start().join(HANG_SECONDS)
    assert follower.artifact is not None
    assert follower.took_part_in == []


def test_another_process_of_the_job_takes_no_part_in_another_job(tmp_path: Path) -> None:
    follower = Follower(tmp_path)

    def computing(folder: Path) -> dict[str, Any]:
        thread = follower.start()
        thread.join(4 * POLL_SECONDS)
        assert thread.is_alive()
        return writing("by another job")(folder)

    ArtifactStore(tmp_path, job="other").produce(RECIPE, computing, no_facts, together=True)
    wait_until(lambda: follower.artifact, "the other process finds the result")
    assert follower.artifact is not None
    assert follower.took_part_in == []


def test_another_process_of_the_job_does_not_wait_for_a_first_that_is_gone(tmp_path: Path) -> None:
    def failing(folder: Path) -> dict[str, Any]:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        ArtifactStore(tmp_path, job="j").produce(RECIPE, failing, no_facts)
    follower = Follower(tmp_path)
    follower.start().join(HANG_SECONDS)
    assert "the first process of this job ended" in str(follower.error)


def test_another_process_of_the_job_gives_up_on_a_first_that_never_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tslrec.pipeline.artifacts.START_SECONDS", 0.5)
    follower = Follower(tmp_path)
    follower.start().join(HANG_SECONDS)
    assert "no first process of this job" in str(follower.error)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="artifacts=FOLDER") as raised:
        ArtifactStore(tmp_path / "file").produce(RECIPE, writing("abc"), no_facts)
    assert "\n" not in str(raised.value)
