"""Stage 5 of the pipeline: a new backbone whose item table is fused with what the earlier stages learnt of items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from safetensors.torch import save_file
from torch import Tensor

from tslrec.arrays import ID_MAP, shapes
from tslrec.check import fusion_inputs, maker_of
from tslrec.errors import UserError
from tslrec.item_embedding import ItemEmbedding
from tslrec.knowledge.origin import digest_item_map
from tslrec.knowledge.store import CATEGORIES, KNOWLEDGE, KnowledgeStore
from tslrec.knowledge.table_file import FILE, read_knowledge
from tslrec.llm.adapter_files import HEADS
from tslrec.stages.context import StageContext
from tslrec.stages.next_item import NextItemModule
from tslrec.stages.recommender import train_recommender
from tslrec.streaming import FileTable, Table, slices

VERSION = 8
TOGETHER = True


class FusionRecModule(NextItemModule):
    """A new backbone (paper, Section 4.2) that sees each item through a fusion; trained like any other."""


def run(context: StageContext) -> dict[str, Any]:
    """Writes `weights.safetensors`, `ranks.safetensors`, and `gates.safetensors` of a fusion that weighs.

    The last is `id_shares` `[I + 1]`: see `ItemEmbedding`. The frozen inputs of the fusion stay in the artifacts that
    they came from.
    """
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
    module, metrics = train_recommender(context, item_embedding, FusionRecModule)
    with torch.no_grad():
        id_shares_I = item_embedding.id_shares()
    if id_shares_I is not None and module.global_rank == 0:
        save_file({"id_shares": id_shares_I.float().cpu()}, context.folder / "gates.safetensors")
    return metrics


def load_input(context: StageContext, name: str) -> Table:
    """What an earlier stage knows of each item: finite, of these items, with a row for padding.

    The knowledge stays in its store, read slice by slice; what of it is in memory is up to the fusion.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    maker = maker_of(context.config, name)
    folder = Path(context.inputs[maker])
    table: Table
    if name == "clusters_I":
        table = clusters_of(folder, context)
    elif maker == "augment":
        table = knowledge_of(folder, context).table(CATEGORIES if name == "categories_IK" else KNOWLEDGE)
    else:
        refuse_other_items(folder / FILE, context)
        table = read_knowledge(folder)
    rows, remedy = context.interactions.num_items + 1, f"delete {folder} to compute it again"
    if len(table) != rows:
        raise UserError(f"{folder}: {len(table)} rows, but the data set has {rows} (padding included); {remedy}")
    if not all(torch.isfinite(table[each]).all() for each in slices(rows)):
        raise UserError(f"{folder}: values that are not finite; {remedy}")
    return table


def knowledge_of(folder: Path, context: StageContext) -> KnowledgeStore:
    """A store of the data set's items, its knowledge as wide as the model that made it."""
    store = KnowledgeStore.open(folder)
    item_map = digest_item_map(context.interactions.ids.items[1:])
    store.origin.refuse_other(replace(store.origin, item_map=item_map), folder, ["item_map"])
    table = store.table()
    trained, _ = shapes(Path(context.inputs["sft"]) / HEADS)
    if table.shape[1:] != trained["item_projection.weight"][:1]:
        raise UserError(
            f"{folder}: rows of {table.shape[1]} numbers, but the language model's have "
            f"{trained['item_projection.weight'][0]}; delete it to compute it again"
        )
    return store


def clusters_of(folder: Path, context: StageContext) -> Tensor:
    """The preliminary category of each item, which must be of the data set's items."""
    path = folder / "preferences.safetensors"
    refuse_other_items(path, context)
    return FileTable(path, "clusters", dimensions=1)[:]


def refuse_other_items(path: Path, context: StageContext) -> None:
    """Refuses a file whose rows stand for other items than the data set's.

    Raises:
        UserError: naming the file.
    """
    # Files of before the id map stood in them name none; their manifest names the data.
    if shapes(path)[1].get(ID_MAP, context.interactions.ids.digest) != context.interactions.ids.digest:
        raise UserError(
            f"{path}: its rows are other items than those of {context.interactions.name}; delete {path.parent} to "
            "compute it again"
        )
