"""Whether a knowledge store can be extended to a catalogue that grew, and which of its items are new.

The extended store takes over the rows of the old items by raw id, unchanged. That is correct only if computing them
again would give the same rows, so everything that they depend on must be the same: the base model, the adapter, the
prompt, K, the centroids, and the embedding of every old item, bit for bit; and its title, where titles are read.

The embeddings of new items must lie in the same space as the old ones. A backbone that trains on with the old rows
frozen gives such embeddings. A backbone trained anew moves every item; then the whole store must be computed anew.
New items are standardised by the mean and scale of the catalogue that the adapter was trained on.

Shapes: I items of today's catalogue (row 0 of a table is padding), N new items, R rows, D hidden size of the backbone,
K categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.item_titles import texts_of_file
from tslrec.knowledge.origin import Origin
from tslrec.knowledge.store import KnowledgeStore
from tslrec.knowledge.table import ItemLocations
from tslrec.llm.adapter import digest_trained
from tslrec.llm.item_input import EMBEDDING, EMBEDDINGS, ItemInput
from tslrec.llm.weights_source import ResolvedSource, resolve
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.stages.outputs import centroids
from tslrec.stages.registry import code_version
from tslrec.stages.sft.items import encode_items
from tslrec.stages.sft.prompt import INSTRUCTION, RESPONSE
from tslrec.system.errors import UserError
from tslrec.system.hashing import digest_item_map, digest_rows
from tslrec.system.manifests import MANIFEST, find_result, read_manifest, verify
from tslrec.system.row_tables import FileTable, read_rows

STAGE = "augment"
"""The stage whose results are extended."""

SAME_ORIGIN = ("base_model", "adapter", "prompt", "num_clusters", "centroids")
"""The parts of a store's origin that must be as they were when the store was made."""


@dataclass(frozen=True)
class Catalogue:
    """Today's items.

    Attributes:
        raw_ids: of items 1..I.
        item_embeddings_ID: `[I + 1, D]`, row 0 for padding.
        path: the file of the embeddings, for messages.
        titles: the text that stands for each item `[I + 1]`, "" for padding; None: they are not known.
    """

    raw_ids: tuple[str, ...]
    item_embeddings_ID: FileTable
    path: Path
    titles: Sequence[str] | None = None

    @classmethod
    def read(cls, items: Path, item_embeddings: Path, titles: Path | None = None) -> Catalogue:
        """Reads `items.parquet` and `item_embeddings.safetensors` in the form that a run's stages write.

        Args:
            items: the item map.
            item_embeddings: of all items.
            titles: CSV or Parquet as `data.titles` names it; None: the items' titles are not known.

        Raises:
            UserError: if a file cannot be read, or they are not of the same items.
        """
        try:
            raw_ids = tuple(pl.read_parquet(items, columns=["raw_id"], glob=False)["raw_id"])
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{items}: not a readable item map ({reason}); name one as in a run's data folder"
            ) from error
        try:
            table = FileTable(item_embeddings, "item_embeddings")
        except OSError as error:
            raise UserError(
                f"{item_embeddings}: has no readable item_embeddings ({error}); name a file as a backbone writes it"
            ) from error
        if not raw_ids or raw_ids[0] != "":
            raise UserError(f"{items}: its row 0 is not padding, whose raw_id is the empty string; put it in front")
        if len(set(raw_ids)) != len(raw_ids):
            raise UserError(f"{items}: a raw_id occurs twice; give each item one row")
        if len(table) != len(raw_ids):
            raise UserError(
                f"{item_embeddings}: {len(table):,} rows, but {items} has {len(raw_ids):,}; give both alike"
            )
        texts = None if titles is None else texts_of_file(titles, raw_ids, items.name, "--titles FILE")[0]
        return cls(raw_ids[1:], table, item_embeddings, None if texts is None else ["", *texts])


class EarlierStore:
    """The store that is extended, and what it was made with.

    Args:
        folder: the store's, in the artifacts folder of a run.
        cache: folder of downloaded and converted weights.

    Attributes:
        manifest: the store's manifest.
        store: the store.
        llm: the language model's settings when the store was made.
        source: the language model's weights.
        sft: the folder of the fine-tuned adapter.

    Raises:
        UserError: if it is not a finished store of today's version, or something that it was made with has changed.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder.resolve()
        if not (self.folder / MANIFEST).is_file():
            raise UserError(f"{folder}: no knowledge store; name the folder of one, such as artifacts/{STAGE}/NAME")
        self.manifest: Mapping[str, Any] = read_manifest(self.folder)
        if self.manifest.get("stage") != STAGE:
            raise UserError(f"{folder}: the result of the stage {self.manifest.get('stage')}; name one of {STAGE}")
        if self.manifest["version"] != code_version(STAGE):
            raise UserError(
                f"{folder}: made by version {self.manifest['version']} of the stage, now {code_version(STAGE)}; "
                "compute it again"
            )
        verify(self.folder, self.manifest)
        self.store = KnowledgeStore.open(self.folder)
        settings = dict(self.manifest["config"]["llm"])
        self.llm = LLMConfig(**{**settings, "lora": LoraConfig(**settings.get("lora", {}))})
        self.source: ResolvedSource = resolve(self.llm, cache)
        self.sft = self.input_folder("sft")
        centroids_KD = centroids(self.input_folder("preferences"))
        today = replace(
            self.store.origin,
            base_model=self.source.identity,
            adapter=digest_trained(self.sft),
            prompt=(INSTRUCTION, RESPONSE),
            num_clusters=len(centroids_KD),
            centroids=digest_rows(centroids_KD),
        )
        self.store.origin.require_match(today, self.folder, SAME_ORIGIN)

    @property
    def root(self) -> Path:
        """The artifacts folder that the store is in."""
        return self.folder.parent.parent

    def input_folder(self, stage: str) -> Path:
        """The artifact of another stage that the store was made from.

        Raises:
            UserError: if it is not in the same artifacts folder, or is damaged.
        """
        folder, manifest = find_result(self.root, stage, self.manifest["inputs"][stage], self.folder)
        verify(folder, manifest)
        return folder

    def items_of(self, catalogue: Catalogue) -> ItemInput:
        """What the language model reads of today's items, as it did of the store's.

        Raises:
            UserError: if it reads titles and the catalogue has none; or see `encode_items`.
        """
        origin = self.store.origin
        if origin.item_input == EMBEDDING or origin.title_tokens is None:
            return EMBEDDINGS
        if catalogue.titles is None:
            raise UserError(
                f"{self.folder}: made with sft.item_input={origin.item_input}, so new items need titles; give --titles "
                "FILE, CSV or Parquet with item_id and title of all items"
            )
        return encode_items(
            self.source, catalogue.titles, item_input=origin.item_input, title_tokens=origin.title_tokens
        )


@dataclass(frozen=True)
class Extension:
    """Which items are taken over, which are computed, and where each item's row will be.

    Attributes:
        origin: of the extended store.
        new_N: numbers of the items to compute, ascending.
        old_places: where the earlier store has each of today's items, item i at position i - 1; -1 for a new item.
        items: what the language model reads of today's items.
    """

    origin: Origin
    new_N: NDArray[np.int64]
    old_places: ItemLocations
    items: ItemInput

    @classmethod
    def of(cls, earlier: EarlierStore, catalogue: Catalogue) -> Extension:
        """Compares today's catalogue with the store.

        Raises:
            UserError: if an old item is missing or has another embedding or title, or new items need titles and there
                are none.
        """
        store, items = earlier.store, earlier.items_of(catalogue)
        today = pl.DataFrame({"raw_id": catalogue.raw_ids, "today": np.arange(1, len(catalogue.raw_ids) + 1)})
        old = store.index.join(today, on="raw_id", how="left", maintain_order="left")
        missing = old.filter(pl.col("today").is_null())["raw_id"]
        if len(missing):
            raise UserError(
                f"{earlier.folder}: has {len(missing):,} items that the catalogue lacks, {missing[0]} for one; give a "
                "catalogue with all items of the store and the new ones"
            )
        origin = replace(
            store.origin,
            item_map=digest_item_map(catalogue.raw_ids),
            item_embeddings=digest_rows(catalogue.item_embeddings_ID, start=1),
            titles=items.digest_titles(range(1, len(catalogue.raw_ids) + 1)),
        )
        in_old_order = Reordered(catalogue.item_embeddings_ID, old["today"].to_numpy())
        today_of_old = replace(
            store.origin, item_embeddings=digest_rows(in_old_order), titles=items.digest_titles(old["today"])
        )
        store.origin.require_match(today_of_old, earlier.folder)
        index = store.index.select("raw_id", "shard", "row")
        places = today.join(index, on="raw_id", how="left", maintain_order="left").fill_null(-1)
        new_N = places.filter(pl.col("shard") < 0)["today"].to_numpy()
        return cls(origin, new_N, ItemLocations(places["shard"].to_numpy(), places["row"].to_numpy()), items)

    def places(self, num_old_shards: int, shard_size: int) -> ItemLocations:
        """Where each item's row is in the extended store, whose new shards are numbered after the old ones.

        Args:
            num_old_shards: shards of the earlier store.
            shard_size: items of a new shard.
        """
        added = ItemLocations.in_order(len(self.new_N), shard_size)
        shards_I, rows_I = self.old_places.shards_I.copy(), self.old_places.rows_I.copy()
        shards_I[self.new_N - 1], rows_I[self.new_N - 1] = added.shards_I + num_old_shards, added.rows_I
        return ItemLocations(shards_I, rows_I)


class Reordered:
    """Rows of a table in another order.

    Args:
        table: the table.
        rows_R: the numbers of the rows, in the wanted order.
    """

    def __init__(self, table: FileTable, rows_R: NDArray[np.int64]) -> None:
        self.table = table
        self.rows_R = rows_R
        self.shape: tuple[int, ...] = (len(rows_R), table.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Tensor:
        return read_rows(self.table, self.rows_R[rows])
