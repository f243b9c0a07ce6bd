"""Builds a backbone and a fusion from their sections of the configuration; free of the training code.

Shapes: I items (row 0 of a table is padding), D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tslrec.models.backbones.base import Backbone
from tslrec.models.fusions.knowledge_scaling import KnowledgeScaling
from tslrec.models.item_embedding import ItemEmbedding
from tslrec.settings.choices import MODEL_KEYS, OWN_KEYS
from tslrec.system.row_tables import Table
from tslrec.system.targets import find_target


def build_backbone(
    model: Mapping[str, Any], item_embedding: ItemEmbedding, *, num_users: int, max_len: int
) -> Backbone:
    """The backbone that a `model` section describes.

    Args:
        model: the section: `_target_` and the backbone's own settings.
        item_embedding: what the backbone is built around.
        num_users: U.
        max_len: the longest input, L, in items.
    """
    settings = {key: value for key, value in model.items() if key not in MODEL_KEYS and key != "_target_"}
    backbone = find_target("model", model)(item_embedding, num_users, max_len, **settings)
    assert isinstance(backbone, Backbone)
    return backbone


def build_fusion(
    fusion: Mapping[str, Any], inputs: Mapping[str, Table | KnowledgeScaling], *, num_items: int, hidden_size: int
) -> ItemEmbedding:
    """The item embedding that a `fusion` section describes.

    Args:
        fusion: the section: `_target_` and the fusion's own settings.
        inputs: the arrays that the fusion asks for, by the name of the parameter, and possibly `knowledge_scaling`.
        num_items: I.
        hidden_size: D.
    """
    settings = {key: value for key, value in fusion.items() if key not in OWN_KEYS and key != "_target_"}
    item_embedding = find_target("fusion", fusion)(num_items, hidden_size, **inputs, **settings)
    assert isinstance(item_embedding, ItemEmbedding)
    return item_embedding
