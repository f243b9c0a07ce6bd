"""A finished knowledge store: shards in safetensors, and an index that locates each item's row.

    knowledge-00007.safetensors  `knowledge` [R, H] and `categories` [R, K] of the items of one shard
    index.parquet                one line per item: raw id, item, shard, row, likeliest category
    store.json                   what the store was made from, and which process computed each shard when

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

from tslrec.knowledge.origin import Origin
from tslrec.knowledge.table import ItemLocations, KnowledgeTable, shard_file
from tslrec.llm.item_scaling import Scaling
from tslrec.system.errors import UserError
from tslrec.system.files import write_json
from tslrec.system.hashing import digest_item_map
from tslrec.system.row_tables import FileTable, slices

STORE = "store.json"
"""File name of the store's description."""

INDEX = "index.parquet"
"""File name of the index."""

KNOWLEDGE = "knowledge"
"""Name of the array of knowledge-enhanced embeddings (paper, Section 4.2)."""

CATEGORIES = "categories"
"""Name of the array of inferred category distributions (paper, Section 4.2)."""


@dataclass(frozen=True)
class Shard:
    """One shard of a store.

    Attributes:
        rows: items in it.
        process: process id of the process that computed it.
        created: time at which it was computed.
    """

    rows: int
    process: int
    created: str


@dataclass(frozen=True)
class KnowledgeStore:
    """A store on disk; only its index is in memory.

    Attributes:
        folder: the store's.
        origin: what the store was made from.
        scaling: standardises the item embeddings.
        shards: in the order of their numbers.
        index: one line per item, in the order of the items: `raw_id`, `item`, `shard`, `row`, `category`.
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
            index = pl.read_parquet(folder / INDEX, glob=False)
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
                f"{folder}: its shards have {sum(sizes):,} rows in all, {STORE} names {named:,} and {INDEX} "
                f"{len(index):,}, or single shards differ; {again}"
            )
        return store

    @cached_property
    def locations(self) -> ItemLocations:
        """The shard and the row of each item."""
        return ItemLocations(self.index["shard"].to_numpy(), self.index["row"].to_numpy())

    @property
    def num_items(self) -> int:
        """I, without padding."""
        return len(self.index)

    def table(self, key: str = KNOWLEDGE) -> KnowledgeTable:
        """An array in the order of the items: `knowledge` `[I + 1, H]` or `categories` `[I + 1, K]`."""
        return KnowledgeTable(self.folder, key, self.locations)

    def files(self) -> list[Path]:
        """The files of the shards, in the order of their numbers."""
        return [self.folder / shard_file(number) for number in range(len(self.shards))]


def is_store(folder: Path) -> bool:
    """Whether a folder holds a store; if not, its knowledge is in a single file."""
    return (folder / STORE).is_file()


def write_store(
    folder: Path,
    origin: Origin,
    scaling: Scaling,
    files: Sequence[tuple[Path, Shard]],
    locations: ItemLocations,
    raw_ids: Sequence[str],
) -> KnowledgeStore:
    """Writes a store from shards that are on disk already; they are hard-linked, or copied if the disk has no links.

    Args:
        folder: where the store is written.
        origin: what it was made from.
        scaling: standardises the item embeddings.
        files: file and description of each shard, in the order of their numbers.
        locations: the shard and the row of each item.
        raw_ids: raw ids of items 1..I.
    """
    for number, (path, _) in enumerate(files):
        link_or_copy(path, folder / shard_file(number))
    categories = KnowledgeTable(folder, CATEGORIES, locations)
    likeliest_I = np.empty(len(raw_ids), dtype=np.int32)
    for each in slices(len(categories), start=1):
        likeliest_I[each.start - 1 : each.stop - 1] = categories[each].argmax(dim=1).numpy()
    index = pl.DataFrame(
        {
            "raw_id": raw_ids,
            "item": np.arange(1, len(raw_ids) + 1, dtype=np.int32),
            "shard": locations.shards_I,
            "row": locations.rows_I,
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
    """Hard-links a file that never changes; copies it if the file system refuses the link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
