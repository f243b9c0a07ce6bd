"""Whether a knowledge store can be extended to a catalogue that grew, and which of its items are new.

The rows of the items that the store has are taken over by raw id, as they are. That is right only where they would come
out the same, so everything that they depend on must be what it was: the base model, the adapter, the prompt, K, the
centroids, and the embedding of every old item, to the bit. New items need a vector of the same space: a backbone that
goes on training with the old rows frozen gives one. One that was trained anew has moved every item; then the store is
to be computed anew, too. New items are standardised by the numbers of the catalogue that the adapter was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import Tensor

from tslrec.artifacts import KEY_LENGTH, Recipe, read_manifest, verify
from tslrec.config import LLMConfig, LoraConfig
from tslrec.errors import UserError
from tslrec.knowledge.origin import Origin, digest_item_map, digest_rows
from tslrec.knowledge.store import KnowledgeStore, Places
from tslrec.llm.adapter_files import digest_trained
from tslrec.llm.prompt import INSTRUCTION, RESPONSE
from tslrec.llm.source import ResolvedSource, resolve
from tslrec.stages import augment
from tslrec.streaming import FileTable, read_rows

MADE_ALIKE = ("base_model", "adapter", "prompt", "num_clusters", "centroids")
"""What of its origin a store shares with the one that it extends."""


@dataclass(frozen=True)
class Catalogue:
    """The items of today.

    Attributes:
        raw_ids: of items 1..I.
        item_embeddings_ID: `[I + 1, D]`, row 0 for padding.
        path: of the embeddings, for messages.
    """

    raw_ids: tuple[str, ...]
    item_embeddings_ID: FileTable
    path: Path

    @classmethod
    def read(cls, items: Path, item_embeddings: Path) -> Catalogue:
        """Reads files as a run's stages write them: `items.parquet` and `item_embeddings.safetensors`.

        Raises:
            UserError: if they cannot be read, or are not of the same items.
        """
        try:
            raw_ids = tuple(pl.read_parquet(items, columns=["raw_id"])["raw_id"])
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
        return cls(raw_ids[1:], table, item_embeddings)


class Earlier:
    """The store that is extended, and what it was made with.

    Args:
        folder: the store's, in the folder of a run's artifacts.
        cache: of this project, for the weights.

    Raises:
        UserError: if it is no finished store, or what it was made with is not what it was.
    """

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder.resolve()
        self.manifest: Mapping[str, Any] = read_manifest(self.folder)
        if self.manifest.get("stage") != "augment":
            raise UserError(f"{folder}: the result of the stage {self.manifest.get('stage')}; name one of augment")
        if self.manifest["version"] != augment.VERSION:
            raise UserError(
                f"{folder}: made by version {self.manifest['version']} of the stage, now {augment.VERSION}; "
                "compute it again"
            )
        verify(self.folder, self.manifest)
        self.store = KnowledgeStore.open(self.folder)
        settings = dict(self.manifest["config"]["llm"])
        self.llm = LLMConfig(**{**settings, "lora": LoraConfig(**settings.get("lora", {}))})
        self.source: ResolvedSource = resolve(self.llm, cache)
        self.sft = self.input_folder("sft")
        centroids_KD = FileTable(self.input_folder("preferences") / "preferences.safetensors", "centroids")
        now = replace(
            self.store.origin,
            base_model=self.source.identity,
            adapter=digest_trained(self.sft),
            prompt=(INSTRUCTION, RESPONSE),
            num_clusters=len(centroids_KD),
            centroids=digest_rows(centroids_KD),
        )
        self.store.origin.refuse_other(now, self.folder, MADE_ALIKE)

    @property
    def root(self) -> Path:
        """The folder of artifacts that it lies in."""
        return self.folder.parent.parent

    def input_folder(self, stage: str) -> Path:
        """The artifact of an earlier stage that it was made from."""
        key = self.manifest["inputs"][stage]
        for folder in (self.root / stage).glob(f"*-{key[:KEY_LENGTH]}"):
            manifest = read_manifest(folder)
            if manifest["key"] == key:
                verify(folder, manifest)
                return folder
        raise UserError(
            f"{self.folder}: made from {stage} {key[:KEY_LENGTH]}, which is not in {self.root}; put it there"
        )


@dataclass(frozen=True)
class Extension:
    """Which items are taken over, which are computed, and where each will be.

    Attributes:
        origin: of the extended store.
        new_N: numbers of the items that are computed, rising.
        old_places: of today's items that the earlier store has: position i - 1 for item i, -1 for a new one.
    """

    origin: Origin
    new_N: NDArray[np.int64]
    old_places: Places

    @classmethod
    def of(cls, earlier: Earlier, catalogue: Catalogue) -> Extension:
        """Compares the catalogue with the store.

        Raises:
            UserError: if an old item is gone or has another embedding, or there is no new one.
        """
        store = earlier.store
        today = pl.DataFrame({"raw_id": catalogue.raw_ids, "today": np.arange(1, len(catalogue.raw_ids) + 1)})
        old = store.index.join(today, on="raw_id", how="left", maintain_order="left")
        gone = old.filter(pl.col("today").is_null())["raw_id"]
        if len(gone):
            raise UserError(
                f"{earlier.folder}: has {len(gone):,} items that the catalogue lacks, {gone[0]} for one; give a "
                "catalogue with all items of the store and the new ones"
            )
        origin = replace(
            store.origin,
            item_map=digest_item_map(catalogue.raw_ids),
            item_embeddings=digest_rows(catalogue.item_embeddings_ID, start=1),
        )
        in_old_order = Reordered(catalogue.item_embeddings_ID, old["today"].to_numpy())
        unchanged = replace(store.origin, item_embeddings=digest_rows(in_old_order))
        store.origin.refuse_other(unchanged, earlier.folder)
        index = store.index.select("raw_id", "shard", "row")
        places = today.join(index, on="raw_id", how="left", maintain_order="left").fill_null(-1)
        new_N = places.filter(pl.col("shard") < 0)["today"].to_numpy()
        if not len(new_N):
            raise UserError(f"{earlier.folder}: has every item of the catalogue already; there is nothing to compute")
        return cls(origin, new_N, Places(places["shard"].to_numpy(), places["row"].to_numpy()))

    def places(self, num_old_shards: int, shard_size: int) -> Places:
        """Of all items: the new ones lie in shards behind the old ones."""
        added = Places.in_order(len(self.new_N), shard_size)
        shards_I, rows_I = self.old_places.shards_I.copy(), self.old_places.rows_I.copy()
        shards_I[self.new_N - 1], rows_I[self.new_N - 1] = added.shards_I + num_old_shards, added.rows_I
        return Places(shards_I, rows_I)


class Reordered:
    """Rows of a table in another order.

    Args:
        table: whose rows they are.
        rows_R: their numbers.
    """

    def __init__(self, table: FileTable, rows_R: NDArray[np.int64]) -> None:
        self.table = table
        self.rows_R = rows_R
        self.shape: tuple[int, ...] = (len(rows_R), table.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> Tensor:
        return read_rows(self.table, self.rows_R[rows])


def extended_recipe(earlier: Earlier, origin: Origin) -> Recipe:
    """What determines the extended store."""
    manifest = earlier.manifest
    grown = {"item_map": origin.item_map, "item_embeddings": origin.item_embeddings}
    return Recipe(
        stage="augment",
        label=manifest["label"],
        config={**manifest["config"], "extended_to": grown},
        inputs={**manifest["inputs"], "augment": manifest["key"]},
        seed=manifest["seed"],
        version=augment.VERSION,
    )
