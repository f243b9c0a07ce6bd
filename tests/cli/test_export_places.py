"""Where `tslrec export` writes: places where no folder can be, and two exports to one place."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tslrec
from tslrec.cli.main import run
from tslrec.serving import export
from tslrec.system.errors import UserError


def test_a_place_where_no_folder_can_be_is_one_line(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    taken = "exists already"
    places = {"file/new": "file: File exists", "link": taken, "..": taken, "x" * 300: "File name too long"}
    for place, words in places.items():
        with pytest.raises(UserError, match=rf"^[^\n]*{words}[^\n]*$"):
            run(["export", str(finished_run / "artifacts"), "--to", str(tmp_path / place)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_the_second_of_two_exports_to_one_place_is_refused(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["export", str(finished_run / "artifacts"), "--to", str(tmp_path / "new")]
    model_card = export.model_card

    def meanwhile(*arguments: Any) -> str:
        monkeypatch.setattr(export, "model_card", model_card)
        with ThreadPoolExecutor(1) as another:
            another.submit(run, command).result()
        return model_card(*arguments)

    monkeypatch.setattr(export, "model_card", meanwhile)
    with pytest.raises(UserError, match="new: exists already"):
        run(command)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert len(tslrec.load(tmp_path / "new").recommend([["item0001"]], 3)) == 3
