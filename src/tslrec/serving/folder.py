"""The exported recommender: a folder that needs neither the language model nor the artifacts of training.

    recommender.json         what it is; format version; size and sha256 of every other file
    items.parquet            one row per item, row 0 for padding: raw_id, title, count
    item_table.safetensors   `item_table` [I + 1, D], finished: a fusion is computed once
    encoder.safetensors      all other weights of the backbone
    recommender.onnx         optional: the whole recommender as one graph (see tslrec.serving.onnx)
    recommender-int8.onnx    optional: the same with tables and weights in int8
    output_table.safetensors with a graph, only if the items are scored by neither of the tables above
    index.safetensors        optional: the neighbours of each item, for HNSW (see tslrec.serving.index)
    README.md                the model card

Shapes: I items (row 0 is padding), D hidden size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from tslrec.serving.catalogue import Catalogue
from tslrec.system.errors import UserError
from tslrec.system.files import describe

FORMAT = 1
"""Version of the folder's format."""

FACTS = "recommender.json"
ITEMS = "items.parquet"
ITEM_TABLE = "item_table.safetensors"
ENCODER = "encoder.safetensors"
CARD = "README.md"
ONNX = "recommender.onnx"
ONNX_INT8 = "recommender-int8.onnx"
OUTPUT_TABLE = "output_table.safetensors"
INDEX = "index.safetensors"


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported recommender."""
    return (folder / FACTS).is_file()


def read_facts(folder: Path) -> dict[str, Any]:
    """Reads `recommender.json`, and checks that every file has the size and sha256 that it names.

    Raises:
        UserError: if the folder has another format, or a file is not named, missing, damaged or outside of the folder.
    """
    path = folder / FACTS
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, files = facts["format"], dict(facts["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not readable ({error!r}); export the recommender again") from error
    if version != FORMAT:
        raise UserError(f"{path}: format {version}, but this version of tslrec reads {FORMAT}; export again")
    check_files(folder, files)
    if missing := [name for name in (ITEMS, ITEM_TABLE, ENCODER) if name not in files]:
        raise UserError(f"{path}: does not name {missing[0]} among its files; export again")
    if not isinstance(facts.get("backbone"), dict) or not isinstance(facts.get("max_len"), int):
        raise UserError(f"{path}: does not say which backbone it is, and of which length; export again")
    return facts


def check_files(folder: Path, files: Mapping[str, Any]) -> None:
    """Compares the files of a folder with their recorded sizes and hashes.

    Raises:
        UserError: for the first one that is missing, differs, or has a path that leaves the folder.
    """
    for name, expected in files.items():
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name:
            raise UserError(f"{folder / FACTS}: names the file {name!r}, which is outside of the folder; do not use it")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: missing; export the recommender again")
        if describe(folder / name) != expected:
            raise UserError(f"{folder / name}: not the bytes that {FACTS} names; export the recommender again")


def read_catalogue(folder: Path) -> Catalogue:
    """Reads `items.parquet`.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        items = pl.read_parquet(folder / ITEMS, glob=False).select("raw_id", "title", "count")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{folder / ITEMS}: not readable ({str(error).splitlines()[0]}); export again") from error
    return Catalogue(items)
