"""Stage 5 of the pipeline: a new backbone whose item table is fused with what the earlier stages learnt of items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from torch import Tensor

from tslrec.arrays import ID_MAP, load_tensors, shapes
from tslrec.check import MADE_BY, fusion_inputs
from tslrec.errors import UserError
from tslrec.item_embedding import ItemEmbedding
from tslrec.llm.adapter_files import HEADS
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
    """One array of an earlier stage, finite, of this run's items: a row for each of them and one for padding.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    file_name, key = FILES[name]
    path = Path(context.inputs[MADE_BY[name]]) / file_name
    remedy = f"delete {path.parent} to compute it again"
    found, metadata = shapes(path)
    shape, wanted = found.get(key), (context.interactions.num_items + 1, *trailing_shape(context, name))
    if shape is None or len(shape) != len(wanted):
        raise UserError(f"{path}: no '{key}' of {len(wanted)} dimension(s) in it; {remedy}")
    if shape[0] != wanted[0]:
        raise UserError(f"{path}: {shape[0]} rows, but the data set has {wanted[0]} (padding included); {remedy}")
    if shape != wanted:
        raise UserError(f"{path}: rows of {shape[1]} numbers, but the language model's have {wanted[1]}; {remedy}")
    # Files of before the id map stood in them name none; their manifest names the data.
    if metadata.get(ID_MAP, context.interactions.ids.digest) != context.interactions.ids.digest:
        raise UserError(f"{path}: its rows are other items than those of {context.interactions.name}; {remedy}")
    array = load_tensors(path)[key]
    if not torch.isfinite(array).all():
        raise UserError(f"{path}: values that are not finite; {remedy}")
    return array


def trailing_shape(context: StageContext, name: str) -> tuple[int, ...]:
    """The shape of an item's row: of knowledge, the hidden size that the trained item projection leads to."""
    if name != "knowledge_IH":
        return ()
    trained, _ = shapes(Path(context.inputs["sft"]) / HEADS)
    return trained["item_projection.weight"][:1]
