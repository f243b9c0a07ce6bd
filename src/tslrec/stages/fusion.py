"""Stage 5 of the pipeline: a new backbone whose item table is fused with knowledge of the items (paper, Section 4.2).

Shapes: I items (row 0 is padding), H size of an item's knowledge.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from safetensors.torch import save_file
from torch import Tensor

from tslrec.config import OWN_KEYS
from tslrec.knowledge.single_file import FILE, read_knowledge
from tslrec.knowledge.store import KnowledgeStore, is_store
from tslrec.llm.adapter import HEADS
from tslrec.models.item_embedding import ItemEmbedding
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import GATES, PREFERENCES, clusters
from tslrec.stages.recommender import train_recommender
from tslrec.stages.registry import fusion_inputs, maker_of
from tslrec.system.errors import UserError
from tslrec.system.hashing import digest_item_map
from tslrec.system.row_tables import Table, slices
from tslrec.system.safetensors_io import ID_MAP, shapes
from tslrec.training.next_item import NextItemModule


class FusionRecModule(NextItemModule):
    """Next-item training of a new backbone whose item table is a fusion (paper, Section 4.2)."""


def run(context: StageContext) -> dict[str, Any]:
    """Trains a new backbone around the configured fusion.

    Writes `weights.safetensors`, `ranks.safetensors` and, for a fusion with a gate, `gates.safetensors`: `id_shares`
    `[I + 1]` (see `ItemEmbedding.id_shares`). The frozen inputs of the fusion are not copied; they stay in the
    artifacts of the stages that made them.

    Returns:
        See `train_recommender`.

    Raises:
        UserError: if an input of the fusion does not fit the data set; see also `train_recommender`.
    """
    fusion = context.config.fusion
    inputs = {name: load_input(context, name) for name in fusion_inputs(fusion)}
    settings = {key: value for key, value in fusion.items() if key not in OWN_KEYS and key != "_target_"}
    item_embedding = get_class(fusion["_target_"])(
        context.interactions.num_items,
        context.config.model["hidden_size"],
        **inputs,
        **settings,
    )
    assert isinstance(item_embedding, ItemEmbedding)
    module, metrics = train_recommender(context, item_embedding, FusionRecModule)
    with torch.no_grad():
        id_shares_I = item_embedding.id_shares()
    if id_shares_I is not None and module.global_rank == 0:
        save_file({"id_shares": id_shares_I.float().cpu()}, context.folder / GATES)
    return metrics


def load_input(context: StageContext, name: str) -> Table:
    """An array that an earlier stage made for the fusion, checked against the data set.

    Knowledge is read from disk slice by slice; the fusion decides how much of it is in memory.

    Args:
        context: the fusion stage's.
        name: the parameter of the fusion: `knowledge_IH` or `clusters_I`.

    Returns:
        Finite values for each item of the data set, row 0 for padding.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    folder = Path(context.inputs[maker_of(context.config, name)])
    table: Table
    if name == "clusters_I":
        table = load_clusters(folder, context)
    elif is_store(folder):
        table = open_store(folder, context).table()
    else:
        check_item_map(folder / FILE, context)
        table = read_knowledge(folder)
    rows, remedy = context.interactions.num_items + 1, f"delete {folder} to compute it again"
    if len(table) != rows:
        raise UserError(f"{folder}: {len(table)} rows, but the data set has {rows} (padding included); {remedy}")
    if not all(torch.isfinite(table[each]).all() for each in slices(rows)):
        raise UserError(f"{folder}: values that are not finite; {remedy}")
    return table


def open_store(folder: Path, context: StageContext) -> KnowledgeStore:
    """Opens a knowledge store whose items must be those of the data set.

    Raises:
        UserError: if the store is of other items, or its rows do not have the size of the fine-tuned language model's
            hidden states.
    """
    store = KnowledgeStore.open(folder)
    item_map = digest_item_map(context.interactions.ids.items[1:])
    store.origin.require_match(replace(store.origin, item_map=item_map), folder, ["item_map"])
    if "sft" in context.inputs:
        check_width(store, Path(context.inputs["sft"]) / HEADS)
    return store


def check_width(store: KnowledgeStore, heads: Path) -> None:
    """Compares H of a store with the hidden size of the language model whose trained layers `heads` holds.

    Raises:
        UserError: if they differ.
    """
    width = store.table().shape[1]
    hidden_size = shapes(heads)[0]["item_projection.weight"][0]
    if width != hidden_size:
        raise UserError(
            f"{store.folder}: rows of {width} numbers, but the language model's have {hidden_size}; delete it to "
            "compute it again"
        )


def load_clusters(folder: Path, context: StageContext) -> Tensor:
    """The category of each item of the data set, int64 `[I + 1]`.

    Raises:
        UserError: if the file is of other items.
    """
    check_item_map(folder / PREFERENCES, context)
    return clusters(folder)


def check_item_map(path: Path, context: StageContext) -> None:
    """Compares the id map in a file's metadata with the data set's.

    Raises:
        UserError: if the rows of the file stand for other items.
    """
    # Files written before the id map was recorded name none; the manifest of their artifact names the data set.
    if shapes(path)[1].get(ID_MAP, context.interactions.ids.digest) != context.interactions.ids.digest:
        raise UserError(
            f"{path}: its rows are other items than those of {context.interactions.name}; delete {path.parent} to "
            "compute it again"
        )
