"""The frozen arrays that a fusion is made of: read from the results of earlier stages, checked against the data set.

Shapes: I items (row 0 is padding).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.knowledge.single_file import FILE, read_knowledge
from tslrec.knowledge.store import KnowledgeStore, is_store
from tslrec.models.fusions.knowledge_scaling import KnowledgeScaling
from tslrec.models.item_embedding import ItemEmbedding
from tslrec.stages.building import build_fusion
from tslrec.stages.knowledge_width import check_knowledge_width
from tslrec.stages.members import Member
from tslrec.stages.method_stages import fusion_inputs, maker_of
from tslrec.stages.outputs import PREFERENCES, clusters
from tslrec.system.errors import UserError
from tslrec.system.hashing import digest_item_map
from tslrec.system.row_tables import Table, slices
from tslrec.system.safetensors_io import ID_MAP, shapes


@dataclass(frozen=True)
class Sources:
    """What a fusion is built from.

    Attributes:
        config: the run's configuration.
        interactions: the data set.
        inputs: the folder of each earlier stage's artifact, by stage name.
        members: see `StageContext.members`.
    """

    config: Config
    interactions: Interactions
    inputs: Mapping[str, Path]
    members: tuple[Member, ...] = ()


def fused_items(sources: Sources, scaling: KnowledgeScaling | None = None) -> ItemEmbedding:
    """The configured fusion with new trainable weights.

    Args:
        sources: what it is built from.
        scaling: of a fusion that trains on, what it standardises its knowledge by; None: by the data set's items.

    Raises:
        UserError: if an input of the fusion does not fit the data set.
    """
    config = sources.config
    tables = {name: load_input(sources, name) for name in fusion_inputs(config.fusion)}
    if "knowledge_IH" in tables:
        check_knowledge_width(config, tables["knowledge_IH"].shape[1])
    inputs: dict[str, Table | KnowledgeScaling] = dict(tables)
    if scaling is not None:
        inputs["knowledge_scaling"] = scaling
    return build_fusion(
        config.fusion, inputs, num_items=sources.interactions.num_items, hidden_size=config.model["hidden_size"]
    )


def load_input(sources: Sources, name: str) -> Table:
    """An array that an earlier stage made for the fusion, checked against the data set.

    Knowledge is read from disk slice by slice; the fusion decides how much of it is in memory.

    Args:
        sources: of the fusion stage.
        name: the parameter of the fusion: `knowledge_IH` or `clusters_I`.

    Returns:
        Finite values for each item of the data set, row 0 for padding.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    folder = Path(sources.inputs[maker_of(sources.config, name)])
    table: Table
    if name == "clusters_I":
        table = load_clusters(folder, sources)
    elif is_store(folder):
        table = open_store(folder, sources).table()
    else:
        check_item_map(folder / FILE, sources)
        table = read_knowledge(folder)
    rows, remedy = sources.interactions.num_items + 1, f"delete {folder} to compute it again"
    if len(table) != rows:
        raise UserError(f"{folder}: {len(table)} rows, but the data set has {rows} (padding included); {remedy}")
    if not all(torch.isfinite(table[each]).all() for each in slices(rows)):
        raise UserError(f"{folder}: values that are not finite; {remedy}")
    return table


def open_store(folder: Path, sources: Sources) -> KnowledgeStore:
    """Opens a knowledge store whose items must be those of the data set.

    Raises:
        UserError: if the store is of other items, or its rows do not have the size of the fine-tuned language model's
            hidden states.
    """
    store = KnowledgeStore.open(folder)
    item_map = digest_item_map(sources.interactions.ids.items[1:])
    store.origin.require_match(replace(store.origin, item_map=item_map), folder, ["item_map"])
    if "sft" in sources.inputs:
        from tslrec.llm.adapter import HEADS

        check_width(store, Path(sources.inputs["sft"]) / HEADS)
    return store


def check_width(store: KnowledgeStore, heads: Path) -> None:
    """Compares H of a store with the hidden size of the language model whose trained layers `heads` holds.

    Raises:
        UserError: if they differ.
    """
    width = store.table().shape[1]
    hidden_size = shapes(heads)[0]["group_head.weight"][1]
    if width != hidden_size:
        raise UserError(
            f"{store.folder}: rows of {width} numbers, but the language model's have {hidden_size}; delete it to "
            "compute it again"
        )


def load_clusters(folder: Path, sources: Sources) -> Tensor:
    """The category of each item of the data set, int64 `[I + 1]`.

    Raises:
        UserError: if the file is of other items.
    """
    check_item_map(folder / PREFERENCES, sources)
    return clusters(folder)


def check_item_map(path: Path, sources: Sources) -> None:
    """Compares the id map in a file's metadata with the data set's.

    Raises:
        UserError: if the rows of the file stand for other items.
    """
    # Files written before the id map was recorded name none; the manifest of their artifact names the data set.
    if shapes(path)[1].get(ID_MAP, sources.interactions.ids.digest) != sources.interactions.ids.digest:
        raise UserError(
            f"{path}: its rows are other items than those of {sources.interactions.name}; delete {path.parent} to "
            "compute it again"
        )
