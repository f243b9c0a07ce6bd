"""Stage 1 of the pipeline: an ID-only sequential recommender, M(Θ) of the paper (Section 4.1), and its item embeddings.

Shapes: I items (row 0 is padding), D hidden size of the backbone.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save_file

from tslrec.models.item_embedding import IdEmbedding
from tslrec.stages.carrying import Carried
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import ITEM_EMBEDDINGS
from tslrec.stages.recommender import train_recommender
from tslrec.training.next_item import NextItemModule


class BackboneModule(NextItemModule):
    """Next-item training of a backbone around one free vector per item: M(Θ) of the paper (Section 4.1)."""


def run(context: StageContext) -> dict[str, Any]:
    """Trains the backbone around one free vector per item.

    A run that is continued trains it on. If later stages read the embeddings of the earlier items, these and the
    encoder stay as they are, and only the rows of new items are trained.

    Writes `weights.safetensors`, `ranks.safetensors` and `item_embeddings.safetensors`, which holds `item_embeddings`,
    float32 `[I + 1, D]`, row 0 zeros.

    Returns:
        See `train_recommender`.

    Raises:
        UserError: see `train_recommender`.
    """
    model = context.config.model
    item_embedding = IdEmbedding(context.interactions.num_items, model["hidden_size"])
    carried = None if context.earlier is None else Carried.of(context.earlier, "backbone", context.interactions)
    module, metrics = train_recommender(context, item_embedding, BackboneModule, carried)
    with torch.no_grad():
        table_ID = module.backbone.item_embedding.table().float().cpu().clone()
    table_ID[0] = 0
    if module.global_rank == 0:
        save_file({"item_embeddings": table_ID}, context.folder / ITEM_EMBEDDINGS)
    return metrics
