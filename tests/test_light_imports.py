"""What a program imports that only uses a recommender: nothing heavy before it is needed, and torch not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.exported import export_with_onnx
from support.imported_packages import run_and_list_imports


def heavy_imports(text: str, folder: Path, *arguments: str) -> list[str]:
    """The heavy packages that a Python program has imported when it ends."""
    program = folder / "program.py"
    program.write_text(text)
    ended = run_and_list_imports(str(program), *arguments, folder=folder)
    assert ended.code == 0
    return ended.heavy


def test_importing_tslrec_imports_no_heavy_package(tmp_path: Path) -> None:
    assert heavy_imports("import tslrec\n", tmp_path) == []


def test_its_names_import_no_torch(tmp_path: Path) -> None:
    assert heavy_imports("from tslrec import Recommender, load\n", tmp_path) == ["polars", "numpy"]


@pytest.mark.slow
def test_an_onnx_export_is_asked_without_torch(tmp_path: Path, finished_run: Path) -> None:
    exported = export_with_onnx(finished_run, tmp_path / "exported")
    program = """
import sys
import tslrec

recommender = tslrec.load(sys.argv[1], engine="onnxruntime")
assert recommender.engine.name == "onnxruntime"
items = recommender.catalogue.raw_ids.to_list()[1:3]
assert len(recommender.recommend([items], k=5)) == 5
assert len(recommender.similar(items, k=5)) == 10
assert len(recommender.score([items], items)) == 2
assert len(recommender.user_vectors([items])) == 1
"""
    assert heavy_imports(program, tmp_path, str(exported)) == ["polars", "numpy"]
