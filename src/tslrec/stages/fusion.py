"""Stage 5 of the pipeline: a new backbone whose item table is fused with what the earlier stages learnt of items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from safetensors.torch import load_file
from torch import Tensor

from tslrec.check import MADE_BY, fusion_inputs
from tslrec.errors import UserError
from tslrec.item_embedding import ItemEmbedding
from tslrec.stages.context import StageContext
from tslrec.stages.next_item import NextItemModule
from tslrec.stages.recommender import train_recommender

VERSION = 5
TOGETHER = True

FILES = {
    "knowledge_IH": ("knowledge.safetensors", "knowledge"),
    "clusters_I": ("preferences.safetensors", "clusters"),
}
"""File and key of each array that a fusion can ask for."""


class FusionRecModule(NextItemModule):
    """A new backbone (paper, Section 4.2) that sees each item through a fusion; trained like any other."""


def run(context: StageContext) -> dict[str, Any]:
    """Writes `weights.safetensors`; the frozen inputs of the fusion stay in the artifacts that they came from."""
    fusion = context.config.fusion
    inputs = {name: load_input(context, name) for name in fusion_inputs(fusion)}
    numbers = {key: value for key, value in fusion.items() if key not in ("name", "_target_")}
    item_embedding = get_class(fusion["_target_"])(
        context.interactions.num_items,
        context.config.model["hidden_size"],
        padding_row=context.config.model.get("padding_row", False),
        **inputs,
        **numbers,
    )
    assert isinstance(item_embedding, ItemEmbedding)
    _, metrics = train_recommender(context, item_embedding, FusionRecModule)
    return metrics


def load_input(context: StageContext, name: str) -> Tensor:
    """One array of an earlier stage, which must be finite and have a row per item and one for padding.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    file_name, key = FILES[name]
    path = Path(context.inputs[MADE_BY[name]]) / file_name
    array = load_file(path)[key]
    rows = context.interactions.num_items + 1
    if len(array) != rows:
        raise UserError(f"{path}: {len(array)} rows, but the data set has {rows} (padding included); delete its folder")
    if not torch.isfinite(array).all():
        raise UserError(f"{path}: values that are not finite; delete its folder to compute it again")
    return array
