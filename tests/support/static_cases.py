"""Models and data for the training by steps of fixed shapes: every backbone, around every kind of item table."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from support.interactions import make_interactions
from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.interactions import Interactions
from tslrec.models.backbones.base import Backbone, CausalBackbone
from tslrec.models.backbones.caser import Caser
from tslrec.models.backbones.fmlp import FMLPRec
from tslrec.models.backbones.fpmc import FPMC
from tslrec.models.backbones.gru4rec import GRU4Rec
from tslrec.models.backbones.lru import LRURec
from tslrec.models.backbones.sasrec import SASRec
from tslrec.models.fusions.category import CategoryFusion
from tslrec.models.fusions.gate import GatedFusion
from tslrec.models.item_embedding import IdEmbedding, ItemEmbedding

NUM_ITEMS, SIZE, MAX_LEN, NUM_USERS = 20, 8, 9, 40

BACKBONES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "sasrec": (SASRec, {"inner_size": 16}),
    "sasrec, its own output": (SASRec, {"inner_size": 16, "own_output": True, "norm_first": True}),
    "gru4rec": (GRU4Rec, {"gru_size": 12}),
    "caser": (Caser, {}),
    "caser, its own output": (Caser, {"own_output": True, "use_user_embedding": True, "recent_first": True}),
    "fmlp": (FMLPRec, {}),
    "fpmc": (FPMC, {}),
    "lru": (LRURec, {}),
}
TABLES = ("id", "gate", "category")


def market(num_users: int = NUM_USERS) -> Interactions:
    """Users with 3 to 29 interactions, so that long histories have several windows."""
    draw = np.random.default_rng(0)
    lengths = np.minimum(3 + draw.geometric(0.12, num_users), 29)
    return make_interactions([draw.integers(1, NUM_ITEMS + 1, length).tolist() for length in lengths], NUM_ITEMS)


def item_table(name: str) -> ItemEmbedding:
    if name == "gate":
        return GatedFusion(NUM_ITEMS, SIZE, knowledge_IH=torch.randn(NUM_ITEMS + 1, 5))
    if name == "category":
        clusters_I = torch.arange(NUM_ITEMS + 1) % 3
        clusters_I[0] = -1
        return CategoryFusion(NUM_ITEMS, SIZE, clusters_I=clusters_I)
    return IdEmbedding(NUM_ITEMS, SIZE)


def make_backbone(name: str, table: str = "id", *, dropout: bool = False) -> Backbone:
    """A backbone with fixed weights, without dropout if nothing else is said."""
    torch.manual_seed(0)
    kind, settings = BACKBONES[name]
    names: dict[type[Any], tuple[str, ...]] = {SASRec: ("hidden_dropout", "attention_dropout"), FPMC: ()}
    rates = {} if dropout else dict.fromkeys(names.get(kind, ("dropout",)), 0.0)
    backbone: Backbone = kind(item_table(table), NUM_USERS, MAX_LEN, **settings, **rates)
    return backbone


def data_for(backbone: Backbone, *, steps_per_batch: int = 1, **settings: Any) -> SequenceDataModule:
    """Training steps of 24 targets where nothing else is said."""
    chosen: dict[str, Any] = {"batch_size": 24, "all_positions": backbone.causal, **settings}
    return SequenceDataModule(
        market(),
        max_len=MAX_LEN,
        eval_batch_size=8,
        seed=1,
        packed=isinstance(backbone, CausalBackbone) and backbone.packs,
        fixed_window=backbone.fixed_window,
        steps_per_batch=steps_per_batch,
        **chosen,
    )
