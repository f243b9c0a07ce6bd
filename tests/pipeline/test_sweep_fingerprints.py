"""A finished run of a sweep is run again where a file that it read has changed, wherever the file is named from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tslrec.pipeline.composition import compose_overrides
from tslrec.pipeline.sweeps.fingerprint import fingerprint, is_finished
from tslrec.pipeline.sweeps.record import Cell, CellState
from tslrec.system.manifests import MANIFEST

ROWS = "user_id,item_id,timestamp\nu,a,1\n"


def found(*overrides: str) -> str:
    return fingerprint(compose_overrides(["method=base", *overrides]))


def change(path: Path) -> None:
    """Writes a line to a file, later than it was written before."""
    path.write_text(path.read_text() + "u,b,2\n")
    later = path.stat().st_mtime + 5
    os.utime(path, (later, later))


def test_a_raw_file_below_the_home_folder_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "log.csv"
    file.write_text(ROWS)
    before = found("data=csv", "data.path=~/log.csv")
    assert found("data=csv", "data.path=~/log.csv") == before
    change(file)
    assert found("data=csv", "data.path=~/log.csv") != before


def test_the_files_of_a_raw_folder_are_looked_at(tmp_path: Path) -> None:
    given = ["data=csv", f"data.path={tmp_path / 'log'}"]
    part = tmp_path / "log" / "day=1" / "part-0.csv"
    part.parent.mkdir(parents=True)
    part.write_text(ROWS)
    seen = [found(*given)]
    change(part)
    seen.append(found(*given))
    (tmp_path / "log" / "part-1.csv").write_text(ROWS)
    seen.append(found(*given))
    (tmp_path / "log" / "_SUCCESS").write_text("")
    assert found(*given) == seen[-1]
    (tmp_path / "log" / "part-1.csv").rename(tmp_path / "log" / "part-2.csv")
    seen.append(found(*given))
    assert len(set(seen)) == len(seen)


def test_a_folder_that_the_reader_refuses_is_the_runs_to_refuse(tmp_path: Path) -> None:
    assert found("data=csv", f"data.path={tmp_path}") == found("data=csv", f"data.path={tmp_path}")


@pytest.mark.parametrize("section", ["llm", "t5"])
def test_the_files_of_a_models_folder_are_looked_at(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text("{}")
    given = ["llm=tiny", "llm.random=null"] if section == "llm" else ["llm=tiny"]
    seen = [found(*given, f"{section}.path=~/model")]
    assert found(*given, f"{section}.path=~/model") == seen[0]
    for name in ("model.safetensors", "tokenizer.json"):
        change(folder / name)
        seen.append(found(*given, f"{section}.path=~/model"))
    assert len(set(seen)) == len(seen)


def test_a_language_model_that_is_one_file_is_looked_at(tmp_path: Path) -> None:
    weights = tmp_path / "model.gguf"
    weights.write_text("GGUF")
    given = ["llm=tiny", "llm.random=null", f"llm.path={weights}"]
    before = found(*given)
    change(weights)
    assert found(*given) != before


def test_a_run_is_finished_whose_record_keeps_another_method_that_is_gone(tmp_path: Path) -> None:
    config = compose_overrides(["method=base", "data=synthetic", "llm=tiny"])
    (tmp_path / "stage").mkdir()
    (tmp_path / "stage" / MANIFEST).write_text("{}")

    def entry(method: str, folder: str) -> dict[str, object]:
        stages = {"backbone": {"folder": str(tmp_path / folder), "key": "0" * 64}}
        names = {"data": "synthetic", "model": "sasrec", "source_model": "sasrec", "preset": "small", "seed": 0}
        section = {"method": {"name": method, "stages": ["backbone"]}, "data": {}}
        return {"method": method, **names, "metrics": {}, "content": None, "stages": stages, "config": section}

    (tmp_path / "result.json").write_text(json.dumps({"results": [entry("ci", "gone"), entry("base", "stage")]}))
    cell = Cell(0, "seed=0", CellState.DONE, result=tmp_path, fingerprint=fingerprint(config))
    assert is_finished(cell, config)
    compared = compose_overrides(["method=base", "data=synthetic", "llm=tiny", "compare=[ci]"])
    assert not is_finished(Cell(0, "", CellState.DONE, result=tmp_path, fingerprint=fingerprint(compared)), compared)
