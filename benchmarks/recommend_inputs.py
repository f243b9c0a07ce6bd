"""A recommender with random weights and generated histories, for `recommend.py`.

Shapes: I items (row 0 is padding), D hidden size.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import torch

from tslrec.models.item_embedding import IdEmbedding
from tslrec.serving.export import write_weights
from tslrec.serving.folder import ENCODER, FACTS, FORMAT, ITEM_TABLE, ITEMS
from tslrec.stages.building import build_backbone
from tslrec.stages.restored import of_backbone
from tslrec.system.files import describe, write_json

NUM_ITEMS, HIDDEN_SIZE, MAX_LEN = 2_000, 32, 50
MEAN_LENGTH = 8
ROW_GROUP = 50_000
"""Users of a row group of the histories."""

SASREC = {
    "_target_": "tslrec.models.backbones.sasrec.SASRec",
    "num_layers": 2,
    "num_heads": 2,
    "inner_size": 4 * HIDDEN_SIZE,
}


def write_model(folder: Path) -> None:
    """Writes a SASRec with random weights as `tslrec export` writes a trained one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    backbone = build_backbone(SASREC, IdEmbedding(NUM_ITEMS, HIDDEN_SIZE), num_users=1, max_len=MAX_LEN)
    with torch.no_grad():
        table_ID = backbone.item_embedding.table().clone()
    write_weights(of_backbone(backbone, table_ID), folder)
    raw_ids = ["", *map(str, range(1, NUM_ITEMS + 1))]
    counts = range(NUM_ITEMS + 1)
    titles = pl.Series([None] * (NUM_ITEMS + 1), dtype=pl.String)
    pl.DataFrame({"raw_id": raw_ids, "title": titles, "count": counts}).write_parquet(folder / ITEMS)
    files = {name: describe(folder / name) for name in (ITEM_TABLE, ENCODER, ITEMS)}
    write_json(folder / FACTS, {"format": FORMAT, "backbone": SASREC, "max_len": MAX_LEN, "files": files})


def write_histories(path: Path, num_users: int, seed: int) -> None:
    """Writes histories of 1 to 15 items, of uniformly drawn raw ids, a row group at a time."""
    draw = np.random.default_rng(seed)
    parts = []
    for begin in range(0, num_users, ROW_GROUP):
        users = np.arange(begin, min(begin + ROW_GROUP, num_users))
        lengths = draw.integers(1, 2 * MEAN_LENGTH, len(users))
        rows = pl.DataFrame(
            {"user": np.repeat(users, lengths), "item": draw.integers(1, NUM_ITEMS + 1, int(lengths.sum()))}
        )
        part = path.with_name(f"{path.name}.{begin}")
        rows.group_by("user", maintain_order=True).agg(pl.col("item").alias("items")).write_parquet(part)
        parts.append(part)
    pl.scan_parquet(parts).sink_parquet(path, row_group_size=ROW_GROUP)
    for part in parts:
        part.unlink()
