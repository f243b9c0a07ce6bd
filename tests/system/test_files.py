"""A file is written beside its place under a name of its writer, and what killed writers left is removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support.waiting import HANG_SECONDS
from tslrec.system.files import ABANDONED_SECONDS, is_being_written, write_aside, write_json, write_text

KILLED = """
import os, signal, sys
from pathlib import Path
from tslrec.system.files import write_aside
with write_aside(Path(sys.argv[1])) as aside:
    aside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""A program that is killed while it writes a file."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def age(path: Path, seconds: float) -> None:
    """Sets the time of a file's last change back."""
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_writers_of_the_same_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with write_aside(path) as first:
        first.write_text("first")
        # As another process does in the same moment.
        other = threading.Thread(target=write_text, args=(path, "other"))
        other.start()
        other.join(HANG_SECONDS)
        assert path.read_text() == "other"
        assert is_being_written(first.name, path.name)
        assert names(tmp_path) == sorted(["result.json", first.name])
    assert path.read_text() == "first"
    assert names(tmp_path) == ["result.json"]


def test_many_threads_write_the_same_file(tmp_path: Path) -> None:
    path, failed = tmp_path / "result.json", list[BaseException]()

    def write(number: int) -> None:
        try:
            for _ in range(20):
                write_json(path, {"number": number})
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_SECONDS)
    assert failed == []
    assert json.loads(path.read_text())["number"] in range(8)
    assert names(tmp_path) == ["result.json"]


def test_what_a_killed_process_left_is_removed_by_the_next_writer_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=HANG_SECONDS, check=False)
    (left,) = names(tmp_path)
    assert is_being_written(left, "result.json")
    write_text(tmp_path / "other.json", "{}")
    assert names(tmp_path) == sorted([left, "other.json"])
    write_text(path, "{}")
    assert names(tmp_path) == ["other.json", "result.json"]


@pytest.mark.parametrize("name", ["result.json.node_7-12-13.writing", "result.json.writing"])
def test_what_another_host_or_an_earlier_version_left_is_removed_after_a_day_of_silence(
    tmp_path: Path, name: str
) -> None:
    path, left = tmp_path / "result.json", tmp_path / name
    left.write_text("half")
    write_text(path, "{}")
    assert left.exists()
    age(left, ABANDONED_SECONDS + 60)
    write_text(path, "{}")
    assert names(tmp_path) == ["result.json"]


@pytest.mark.parametrize("name", ["result.json.notes.writing", "my-result.json.node-1-2.writing", "result.json.bak"])
def test_other_files_are_left_alone(tmp_path: Path, name: str) -> None:
    other = tmp_path / name
    other.write_text("mine")
    age(other, 2 * ABANDONED_SECONDS)
    write_text(tmp_path / "result.json", "{}")
    assert other.read_text() == "mine"


def test_an_error_leaves_no_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "result.json", {"loss": float("nan")})
    assert names(tmp_path) == []
