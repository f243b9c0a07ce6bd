"""Recommenders and servers of a few items, made by hand.

Shapes: B users, L positions, I items (row 0 is padding), K places of a list, C candidates, E size of a user vector.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import torch

from support.waiting import HANG_SECONDS, wait_until
from tslrec.models.item_embedding import FixedTable
from tslrec.serving.catalogue import Catalogue
from tslrec.serving.engine import Batch, Floats, Ids
from tslrec.serving.export import write_weights
from tslrec.serving.folder import FACTS, FORMAT, ITEMS
from tslrec.serving.recommender import Recommender
from tslrec.serving.server.app import Settings, create_app
from tslrec.serving.server.models import Models, Served, of_recommender
from tslrec.serving.server.process import listen, make_server
from tslrec.stages.building import build_backbone
from tslrec.stages.restored import of_backbone
from tslrec.system.files import describe, list_files, write_json

NUM_ITEMS = 30
MAX_LEN = 5
WORDS = ("red", "green", "blue", "gold")


class TableEngine:
    """A user vector is the sum of the vectors of the last items; whole numbers, so that no order of sums matters.

    Args:
        seed: of the item vectors.
        before: is called at the start of each computation.
    """

    name = "table"
    num_items = NUM_ITEMS
    max_len = MAX_LEN

    def __init__(self, seed: int = 0, before: Callable[[], object] = lambda: None) -> None:
        self.table_IE = np.random.default_rng(seed).integers(-8, 9, (NUM_ITEMS + 1, 4)).astype(np.float32)
        self.table_IE[0] = 0
        self.before = before

    def best_items(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        self.before()
        candidates_C = np.arange(1, NUM_ITEMS + 1) if candidates_C is None else candidates_C
        scores_BC = self.scores(batch, candidates_C)
        for row, item in zip(batch.seen_rows_S, batch.seen_items_S, strict=True):
            scores_BC[row, candidates_C == item] = -np.inf
        order_BK = np.argsort(-scores_BC, axis=1, kind="stable")[:, :length]
        scores_BK = np.take_along_axis(scores_BC, order_BK, axis=1)
        ids_BK = np.where(np.isfinite(scores_BK), candidates_C[order_BK], 0)
        missing = ((0, 0), (0, length - ids_BK.shape[1]))
        return np.pad(ids_BK, missing), np.pad(scores_BK, missing, constant_values=-np.inf)

    def scores(self, batch: Batch, candidates_C: Ids) -> Floats:
        found: Floats = self.user_vectors(batch) @ self.table_IE[candidates_C].T
        return found

    def user_vectors(self, batch: Batch) -> Floats:
        sums_BE: Floats = self.table_IE[batch.items_BL].sum(axis=1)
        return sums_BE

    def item_vectors(self) -> Floats:
        return self.table_IE


def small_catalogue() -> Catalogue:
    """Items "1" to "30"; every third one has no title."""
    raw_ids = [str(item) for item in range(NUM_ITEMS + 1)]
    titles = [None if item % 3 == 0 else f"{WORDS[item % 4]} thing {item}" for item in range(NUM_ITEMS + 1)]
    counts = [0, *((7 * item) % 11 for item in range(1, NUM_ITEMS + 1))]
    return Catalogue(pl.DataFrame({"raw_id": raw_ids, "title": pl.Series(titles, dtype=pl.String), "count": counts}))


def small_recommender(seed: int = 0, before: Callable[[], object] = lambda: None) -> Recommender:
    """A recommender around `TableEngine`."""
    facts = {"method": "base", "model": "sasrec", "data": "made", "seed": seed, "metrics": {"test/masked/HR@10": 0.5}}
    return Recommender(TableEngine(seed, before), small_catalogue(), facts)


def small_model(name: str = "small", seed: int = 0, before: Callable[[], object] = lambda: None) -> Served:
    """A served model around `TableEngine`."""
    return of_recommender(small_recommender(seed, before), name, Path("/nowhere") / name)


def write_small_export(folder: Path, seed: int = 0) -> Path:
    """Writes an exported SASRec of a few items with random weights.

    Args:
        folder: is made.
        seed: of the weights.
    """
    folder.mkdir(parents=True)
    target = "tslrec.models.backbones.sasrec.SASRec"
    section = {"_target_": target, "hidden_size": 8, "num_layers": 1, "num_heads": 1, "inner_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        table_ID = torch.randn(NUM_ITEMS + 1, 8)
        backbone = build_backbone(section, FixedTable(table_ID), num_users=1, max_len=MAX_LEN)
        for parameter in backbone.parameters():
            parameter.data = torch.randn_like(parameter)
    write_weights(of_backbone(backbone, table_ID), folder)
    small_catalogue().items.write_parquet(folder / ITEMS)
    facts: dict[str, Any] = {"format": FORMAT, "backbone": section, "max_len": MAX_LEN, "method": "base", "seed": seed}
    write_json(folder / FACTS, {**facts, "files": {name: describe(folder / name) for name in list_files(folder)}})
    return folder


@contextlib.contextmanager
def running_server(models: Sequence[Served], settings: Settings | None = None) -> Iterator[httpx.Client]:
    """A real server on a free port of loopback, in a thread; gives a client of it."""
    listening = listen("127.0.0.1", 0)
    server = make_server(create_app(Models(models), settings or Settings()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, "the server has started")
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=address, timeout=HANG_SECONDS, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(HANG_SECONDS)
        listening.close()
