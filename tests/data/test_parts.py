"""A folder of parts: their order, which makes the order of interactions without times, and links."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tslrec.data.download import raw_sha256
from tslrec.data.formats.parts import files_of
from tslrec.data.ingest import read_raw
from tslrec.settings.data import DataConfig
from tslrec.system.errors import UserError


def written(folder: Path, *names: str) -> Path:
    """A folder with files of one row, whose item is the file's name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"user,item\na,{name}\n")
    return folder


def names_of(folder: Path) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files_of(folder)]


def digest_of(folder: Path, names: list[str]) -> str:
    """What the raw hash of a folder was before links were followed: of the names and contents, in this order."""
    state = hashlib.sha256()
    for name in names:
        state.update(f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return state.hexdigest()


def test_numbers_in_names_count_as_numbers(tmp_path: Path) -> None:
    order = ["day9/part.1.csv", "day10/part.0.csv", "part.0.csv", "part.1.csv", "part.2.csv", "part.10.csv"]
    folder = written(tmp_path / "log", *order)
    reader = {"_target_": "tslrec.data.formats.tables.read_csv", "user_column": "user", "item_column": "item"}
    raw, _ = read_raw(DataConfig(name="log", reader=reader, path=str(folder)), tmp_path)
    assert raw.rows["item"].to_list() == order


def test_only_another_order_makes_another_hash(tmp_path: Path) -> None:
    padded = ["a-1.csv", "a.csv", "a1.csv", "b/part-00002.csv", "b/part-00010.csv", "c.csv"]
    same = written(tmp_path / "same", *padded)
    assert names_of(same) == padded == [file.relative_to(same).as_posix() for file in sorted(same.rglob("*.csv"))]
    assert raw_sha256(same) == digest_of(same, padded)
    other = written(tmp_path / "other", "part.2.csv", "part.10.csv")
    assert raw_sha256(other) == digest_of(other, ["part.2.csv", "part.10.csv"])
    assert raw_sha256(other) != digest_of(other, ["part.10.csv", "part.2.csv"])


def test_linked_folders_and_files_are_read(tmp_path: Path) -> None:
    elsewhere = written(tmp_path / "elsewhere", "2.csv", "deep/3.csv")
    folder = written(tmp_path / "log", "1.csv")
    (folder / "more").symlink_to(elsewhere)
    (folder / "4.csv").symlink_to(written(tmp_path / "file", "x.csv") / "x.csv")
    assert names_of(folder) == ["1.csv", "4.csv", "more/2.csv", "more/deep/3.csv"]


def test_each_folder_is_read_once_whatever_links_lead_to_it(tmp_path: Path) -> None:
    folder = written(tmp_path / "all" / "log", "1.csv", "sub/2.csv")
    written(tmp_path / "all", "of another data set.csv")
    elsewhere = written(tmp_path / "elsewhere", "3.csv")
    (folder / "alias").symlink_to(folder / "sub")
    (folder / "sub" / "back").symlink_to(folder)
    (folder / "sub" / "above").symlink_to(tmp_path / "all")
    (folder / "more").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (elsewhere / "above").symlink_to(tmp_path / "all")
    (elsewhere / "self").symlink_to(elsewhere)
    assert names_of(folder) == ["1.csv", "more/3.csv", "sub/2.csv"]


@pytest.mark.parametrize("target", ["nothing.csv", "gone"])
def test_a_link_to_nothing_is_refused_in_one_line(target: str, tmp_path: Path) -> None:
    folder = written(tmp_path / "log", "1.csv", "sub/2.csv")
    (folder / "sub" / "gone").symlink_to(target)
    with pytest.raises(UserError) as refused:
        files_of(folder)
    assert str(refused.value).startswith(f"{folder}/sub/gone: is a link to a file that is not there; ")
    (folder / "sub" / "gone").rename(folder / "sub" / "_gone")
    assert names_of(folder) == ["1.csv", "sub/2.csv"]
