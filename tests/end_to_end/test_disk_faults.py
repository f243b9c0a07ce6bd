"""A disk that is full, or cannot be written, ends a run in one line; with the fault gone the same command goes on."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from support.checkout import CHECKOUT
from support.disk_limits import largest_file, resize, small_disk
from support.in_process import RUN, train_here
from support.runs import SMALL, assert_one_line, manifests
from support.waiting import HANG_SECONDS
from tslrec.stages import backbone
from tslrec.stages.context import StageContext
from tslrec.system.files import write_json

BASE = ["method=base", *SMALL, "training.max_epochs=1", "trainer.checkpoint_seconds=0", "training.batch_size=64"]
DROP_A_CAPABILITY = 24
"""`PR_CAPBSET_DROP` of prctl(2): what is dropped, the next program does not have."""
CAPABILITIES_THAT_IGNORE_PERMISSIONS = (1, 2)


def assert_nothing_half_made(folder: Path, finished: set[str]) -> None:
    """Only what was finished has a final name, and nobody holds a lock."""
    final = {
        path.relative_to(folder / "artifacts").as_posix()
        for path in (folder / "artifacts").glob("*/*-????????????")
        if path.is_dir() and path.parent.name != "runs"
    }
    assert final == finished
    for lock in (folder / "artifacts").rglob("*.lock"):
        with FileLock(lock, timeout=0):
            pass


@pytest.mark.parametrize(
    ("stage", "size"),
    [("data", 200), ("backbone", 50), ("backbone", 2000), ("preferences", 200), ("sft", 8000), ("augment", 200)],
)
def test_a_result_that_cannot_be_written_whole_is_one_line(
    stage: str, size: int, finished_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    before = manifests(tmp_path)
    shutil.rmtree(tmp_path / "artifacts" / stage)
    finished = {name for name in before if not name.startswith(f"{stage}/")}
    with largest_file(size):
        line = train_here(*RUN, folder=tmp_path).refusal
    assert "File too large; a run needs folders that can be written, with space left" in line
    # Below two kilobytes the first file that does not fit is the record of what the run builds on.
    assert str(tmp_path / "artifacts" / (stage if size >= 2000 else "")) in line
    assert_nothing_half_made(tmp_path, finished)
    again = train_here(*RUN, folder=tmp_path)
    assert again.code == 0, again.err
    assert again.out.count("computed in") == (0 if stage == "data" else 1)
    assert manifests(tmp_path).keys() == before.keys()
    assert not list(tmp_path.glob("artifacts/*/*.partial"))


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path: Path) -> None:
    written = 0

    def fill(path: Path, value: object) -> None:
        nonlocal written
        written += 1
        if written > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_json(path, value)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tslrec.training.checkpoint_io.write_json", fill)
        line = train_here(*BASE, folder=tmp_path).refusal
    assert "No space left on device" in line
    assert len(list(tmp_path.glob("artifacts/backbone/*.checkpoints/step-*/manifest.json"))) == 2
    again = train_here(*BASE, folder=tmp_path)
    assert again.code == 0, again.err
    assert "base backbone: resumes from step 2" in again.out


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is a file system of its own, of 64 KiB."""
    with small_disk(tmp_path, "64k"):
        yield tmp_path


def test_a_full_disk_is_one_line_and_space_all_it_takes(disk: Path) -> None:
    line = train_here(*BASE, folder=disk).refusal
    assert "No space left on device; a run needs folders that can be written, with space left" in line
    # The data had room, the training had not.
    (data,) = manifests(disk)
    assert_nothing_half_made(disk, {data})
    resize(disk, "64m")
    again = train_here(*BASE, folder=disk)
    assert again.code == 0, again.err
    assert [name.partition("/")[0] for name in sorted(manifests(disk))] == ["backbone", "data"]


def test_a_folder_that_vanishes_while_a_stage_writes_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = backbone.run

    def run_without_folder(context: StageContext) -> dict[str, object]:
        """The backbone's stage, whose folder somebody removes before it is published."""
        metrics: dict[str, object] = original(context)
        shutil.rmtree(context.folder)
        return metrics

    monkeypatch.setattr(backbone, "run", run_without_folder)
    line = train_here(*BASE, folder=tmp_path).refusal
    assert "No such file or directory; the file is missing" in line
    monkeypatch.undo()
    assert train_here(*BASE, folder=tmp_path).code == 0


def obey_permissions() -> None:
    """Even if this is root."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in CAPABILITIES_THAT_IGNORE_PERMISSIONS:
        libc.prctl(DROP_A_CAPABILITY, capability, 0, 0, 0)


def test_a_folder_that_cannot_be_written_is_one_line_and_permission_all_it_takes(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    folder.chmod(0o555)

    def train() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(CHECKOUT / "train.py"), "method=statistics", f"artifacts={folder}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=HANG_SECONDS,
            cwd=tmp_path,
            preexec_fn=obey_permissions,
        )

    run = train()
    if run.returncode == 0 and os.geteuid() == 0:
        pytest.skip("root keeps its right to write everywhere here")
    line = assert_one_line(run)
    assert f"{folder}/unfinished: Permission denied" in line
    assert "artifacts=FOLDER" in line
    assert list(folder.iterdir()) == []
    folder.chmod(0o755)
    run = train()
    assert run.returncode == 0, run.stderr
