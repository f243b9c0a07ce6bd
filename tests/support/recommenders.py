"""Small recommenders with random weights, for tests of what is built on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl
import torch

from tslrec.models.backbones.base import Backbone
from tslrec.models.backbones.bert4rec import BERT4Rec
from tslrec.models.backbones.caser import Caser
from tslrec.models.backbones.fmlp import FMLPRec
from tslrec.models.backbones.gru4rec import GRU4Rec
from tslrec.models.backbones.lru import LRURec
from tslrec.models.backbones.sasrec import SASRec
from tslrec.models.item_embedding import IdEmbedding
from tslrec.serving.catalogue import Catalogue
from tslrec.serving.recommender import Recommender
from tslrec.serving.torch_engine import TorchEngine
from tslrec.stages.restored import of_backbone

BACKBONES: dict[str, tuple[Callable[..., Backbone], dict[str, Any]]] = {
    "sasrec": (SASRec, {"inner_size": 16}),
    "sasrec of its authors": (SASRec, {"inner_size": 16, "norm_first": True}),
    "sasrec with its own output table": (SASRec, {"inner_size": 16, "own_output": True}),
    "gru4rec": (GRU4Rec, {"gru_size": 12}),
    "caser": (Caser, {}),
    "caser of its authors": (Caser, {"recent_first": True, "own_output": True}),
    "fmlp": (FMLPRec, {}),
    "bert4rec": (BERT4Rec, {"inner_size": 16}),
    "lru": (LRURec, {}),
}
"""Every backbone, and its other form: class and settings."""


def random_backbone(
    name: str = "sasrec", *, num_items: int = 30, hidden_size: int = 8, max_len: int = 6, seed: int = 0
) -> Backbone:
    """A backbone whose weights are drawn, larger than a new one's, so that scores differ."""
    kind, settings = BACKBONES[name]
    torch.manual_seed(seed)
    backbone = kind(IdEmbedding(num_items, hidden_size), 1, max_len, **settings)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.5)
        backbone.item_embedding.table()[0] = 0
    return backbone.eval()


def random_engine(name: str = "sasrec", **numbers: int) -> TorchEngine:
    """An engine around a random backbone; the numbers are those of `random_backbone`."""
    backbone = random_backbone(name, **numbers)
    return TorchEngine(of_backbone(backbone, backbone.item_embedding.table().detach().clone()))


def catalogue(num_items: int = 30) -> Catalogue:
    """Items with the raw ids a1, a2, … and a title each; the first one is the most popular."""
    return Catalogue(
        pl.DataFrame(
            {
                "raw_id": ["", *(f"a{item}" for item in range(1, num_items + 1))],
                "title": [None, *(f"Item {item}" for item in range(1, num_items + 1))],
                "count": [0, *range(num_items, 0, -1)],
            },
            schema_overrides={"title": pl.String},
        )
    )


def random_recommender(name: str = "sasrec", *, num_items: int = 30, **numbers: int) -> Recommender:
    """A recommender around a random backbone; the numbers are those of `random_backbone`."""
    facts = {"method": "base", "model": name, "data": "made"}
    return Recommender(random_engine(name, num_items=num_items, **numbers), catalogue(num_items), facts)
