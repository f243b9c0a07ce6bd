"""Stage results that are not what they should be: refused in one line, nothing half-made, and the next run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from support.in_process import RUN, forge, train_here
from tslrec.system.hashing import digest_item_map
from tslrec.system.manifests import MANIFEST

SHARD = "augment/*/knowledge-00000.safetensors"
Arrays = dict[str, NDArray[np.float32]]


@pytest.fixture
def folder(finished_run: Path, tmp_path: Path) -> Path:
    """A run of which all but the fusion is there."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "artifacts" / "fusion")
    return tmp_path


def fewer_items(arrays: Arrays) -> None:
    arrays["knowledge"] = arrays["knowledge"][:-1]


def narrower(arrays: Arrays) -> None:
    arrays["knowledge"] = np.ascontiguousarray(arrays["knowledge"][:, :-1])


def flat(arrays: Arrays) -> None:
    arrays["knowledge"] = np.ascontiguousarray(arrays["knowledge"][:, 0])


def not_finite(arrays: Arrays) -> None:
    arrays["knowledge"][3, 5] = np.nan


def none(arrays: Arrays) -> None:
    del arrays["knowledge"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (fewer_items, "its shards have 39 rows in all, store.json names 40"),
        (narrower, "rows of 31 numbers, but the language model's have 32"),
        (flat, "no 'knowledge' of 2 dimension(s)"),
        (none, "no 'knowledge' of 2 dimension(s)"),
        (not_finite, "values that are not finite"),
    ],
)
def test_a_fusion_refuses_knowledge_that_does_not_fit(
    change: Callable[[Arrays], None], words: str, folder: Path
) -> None:
    (path,) = (folder / "artifacts").glob(SHARD)
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)
    forge(path)
    refuses(folder, path.parent, words)


def test_a_fusion_refuses_knowledge_of_other_items(folder: Path) -> None:
    (path,) = (folder / "artifacts").glob("augment/*/index.parquet")
    index = pl.read_parquet(path).with_columns(pl.col("raw_id").reverse())
    index.write_parquet(path)
    store = json.loads((path.parent / "store.json").read_text())
    store["origin"]["item_map"] = digest_item_map(index["raw_id"])
    (path.parent / "store.json").write_text(json.dumps(store))
    forge(path)
    forge(path.parent / "store.json")
    refuses(folder, path.parent, f"made with item_map {store['origin']['item_map'][:12]}, but here it is")


def refuses(folder: Path, artifact: Path, words: str) -> None:
    """A run ends in one line that names the artifact, and leaves no fusion."""
    line = train_here(*RUN, folder=folder).refusal
    assert str(artifact) in line
    assert words in line
    assert not list((folder / "artifacts" / "fusion").glob("*/manifest.json"))


def test_flipped_bytes_are_refused_and_what_is_deleted_is_computed_again(folder: Path) -> None:
    (path,) = (folder / "artifacts").glob(SHARD)
    whole = path.read_bytes()
    content = bytearray(whole)
    content[-1] ^= 1
    path.write_bytes(content)
    line = train_here(*RUN, folder=folder).refusal
    assert f"{path}: not the bytes its manifest names" in line
    shutil.rmtree(path.parent)
    assert train_here(*RUN, folder=folder).code == 0
    assert path.read_bytes() == whole


def test_an_artifact_of_other_data_is_refused_even_under_the_key_that_is_wanted(folder: Path) -> None:
    (path,) = (folder / "artifacts").glob("augment/*/" + MANIFEST)
    manifest = json.loads(path.read_text())
    manifest["inputs"]["data"] = "0" * 64
    path.write_text(json.dumps(manifest))
    assert f"{path}: made from something else than its key says" in train_here(*RUN, folder=folder).refusal


def test_a_data_file_that_has_vanished_is_one_line_and_its_return_all_it_takes(tmp_path: Path) -> None:
    path = tmp_path / "raw.txt"
    path.write_text("".join(f"{user} {user % 7} {user % 5} {user % 3} 8 9\n" for user in range(30)))
    run = ["method=base", "data=user_lines", f"data.path={path}", "training.max_epochs=1", "model.hidden_size=8"]
    assert train_here(*run, folder=tmp_path).code == 0
    path.rename(tmp_path / "elsewhere")
    assert f"{path}: there is no such file" in train_here(*run, folder=tmp_path).refusal
    (tmp_path / "elsewhere").rename(path)
    again = train_here(*run, folder=tmp_path)
    assert again.code == 0
    assert "computed in" not in again.out
