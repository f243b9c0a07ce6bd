"""A finished knowledge store: shards in safetensors, and an index by which each item's row is found.

    knowledge-00007.safetensors  `knowledge` [R, H] and `categories` [R, K] of some items
    index.parquet                a line per item: raw id, item, shard, row, likeliest category
    store.json                   what it was made from, and what each shard cost

Shapes: I items (row 0 of a table is padding), R rows of a shard, H hidden size of the language model, K clusters.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.errors import UserError
from tslrec.files import write_json
from tslrec.knowledge.origin import Origin, digest_item_map
from tslrec.llm.scaling import Scaling
from tslrec.streaming import FileTable, read_rows, slices

STORE, INDEX = "store.json", "index.parquet"
KNOWLEDGE, CATEGORIES = "knowledge", "categories"


@dataclass(frozen=True)
class Shard:
    """One file of a store.

    Attributes:
        rows: items in it.
        process: of those that computed the store; tells them apart.
        created: when it was computed.
    """

    rows: int
    process: int
    created: str


@dataclass(frozen=True)
class Places:
    """Where each item's row is; item i at position i - 1.

    Attributes:
        shards_I: int32, the number of the shard.
        rows_I: int32, the row in it.
    """

    shards_I: NDArray[np.int32]
    rows_I: NDArray[np.int32]

    @classmethod
    def in_order(cls, num_items: int, shard_size: int) -> Places:
        """Item after item, shard after shard."""
        positions = np.arange(num_items, dtype=np.int32)
        return cls(positions // np.int32(shard_size), positions % np.int32(shard_size))


class KnowledgeTable:
    """One array of a store, in the order of the items and with a row of zeros for padding, read by slices.

    Args:
        folder: the store's.
        key: `knowledge` or `categories`.
        places: where each item's row is.
    """

    def __init__(self, folder: Path, key: str, places: Places) -> None:
        self.folder = folder
        self.key = key
        self.places = places
        width = FileTable(folder / shard_file(0), key).shape[1]
        self.shape: tuple[int, ...] = (len(places.shards_I) + 1, width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Tensor:
        start, stop, _ = rows.indices(len(self))
        found = torch.zeros(stop - start, self.shape[1])
        first = max(start, 1)
        shards_R, rows_R = self.places.shards_I[first - 1 : stop - 1], self.places.rows_I[first - 1 : stop - 1]
        for shard in np.unique(shards_R):
            here = np.flatnonzero(shards_R == shard)
            table = FileTable(self.folder / shard_file(int(shard)), self.key)
            found[torch.from_numpy(here + (first - start))] = read_rows(table, rows_R[here].astype(np.int64)).float()
        return found


@dataclass(frozen=True)
class KnowledgeStore:
    """A store on disk; only its index is in memory.

    Attributes:
        folder: where it is.
        origin: what it was made from.
        scaling: of the item embeddings.
        shards: in the order of their numbers.
        index: see the head of this file.
    """

    folder: Path
    origin: Origin
    scaling: Scaling
    shards: tuple[Shard, ...]
    index: pl.DataFrame

    @classmethod
    def open(cls, folder: Path) -> KnowledgeStore:
        """Opens a store.

        Raises:
            UserError: if a file is missing, unreadable, or does not fit the others.
        """
        again = f"delete {folder} to compute it again"
        try:
            value = json.loads((folder / STORE).read_text(encoding="utf-8"))
            index = pl.read_parquet(folder / INDEX)
            origin, scaling = Origin.from_json(value["origin"]), Scaling.from_json(value["scaling"])
            store = cls(folder, origin, scaling, tuple(Shard(**each) for each in value["shards"]), index)
            sizes = [len(FileTable(folder / shard_file(i), KNOWLEDGE)) for i in range(len(store.shards))]
            rows_of_index = np.bincount(index["shard"].to_numpy(), minlength=len(sizes)).tolist()
            item_map = digest_item_map(index["raw_id"])
        except (pl.exceptions.PolarsError, OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{folder}: not a readable knowledge store ({reason}); {again}") from error
        if item_map != origin.item_map:
            raise UserError(
                f"{folder / INDEX}: has the items {item_map[:12]}, but {STORE} names {origin.item_map[:12]}; {again}"
            )
        if not [each.rows for each in store.shards] == sizes == rows_of_index:
            named = sum(each.rows for each in store.shards)
            raise UserError(
                f"{folder}: its shards have {sum(sizes):,} rows, {STORE} names {named:,} and {INDEX} {len(index):,}, "
                f"or others than these; {again}"
            )
        return store

    @cached_property
    def places(self) -> Places:
        return Places(self.index["shard"].to_numpy(), self.index["row"].to_numpy())

    @property
    def num_items(self) -> int:
        return len(self.index)

    def table(self, key: str = KNOWLEDGE) -> KnowledgeTable:
        """`knowledge` `[I + 1, H]` or `categories` `[I + 1, K]`."""
        return KnowledgeTable(self.folder, key, self.places)

    def files(self) -> list[Path]:
        """Of its shards, in the order of their numbers."""
        return [self.folder / shard_file(number) for number in range(len(self.shards))]


def shard_file(number: int) -> str:
    return f"knowledge-{number:05d}.safetensors"


def write_store(
    folder: Path,
    origin: Origin,
    scaling: Scaling,
    files: Sequence[tuple[Path, Shard]],
    places: Places,
    raw_ids: Sequence[str],
) -> KnowledgeStore:
    """Puts a store together from shards that are on disk already, without copying where the disk allows that.

    Args:
        folder: where it is written.
        origin: what it was made from.
        scaling: of the item embeddings.
        files: of the shards, in the order of their numbers.
        places: of all items.
        raw_ids: of items 1..I.
    """
    for number, (path, _) in enumerate(files):
        link_or_copy(path, folder / shard_file(number))
    categories = KnowledgeTable(folder, CATEGORIES, places)
    likeliest_I = np.empty(len(raw_ids), dtype=np.int32)
    for each in slices(len(categories), start=1):
        likeliest_I[each.start - 1 : each.stop - 1] = categories[each].argmax(dim=1).numpy()
    index = pl.DataFrame(
        {
            "raw_id": raw_ids,
            "item": np.arange(1, len(raw_ids) + 1, dtype=np.int32),
            "shard": places.shards_I,
            "row": places.rows_I,
            "category": likeliest_I,
        }
    )
    index.write_parquet(folder / INDEX)
    shards = tuple(shard for _, shard in files)
    write_json(
        folder / STORE,
        {"origin": origin.as_json(), "scaling": scaling.as_json(), "shards": [asdict(shard) for shard in shards]},
    )
    return KnowledgeStore(folder, origin, scaling, shards, index)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name of a file that never changes; a copy where the disk has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
