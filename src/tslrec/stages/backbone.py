"""Stage 1 of the pipeline: an ID-only sequential recommender, and the item embeddings that it learns."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save_file

from tslrec.item_embedding import IdEmbedding
from tslrec.stages.context import StageContext
from tslrec.stages.next_item import NextItemModule
from tslrec.stages.recommender import train_recommender

VERSION = 7
TOGETHER = True


class BackboneModule(NextItemModule):
    """M(Θ) of the paper (Section 4.1): a backbone around a free vector per item."""


def run(context: StageContext) -> dict[str, Any]:
    """Writes `weights.safetensors`, `ranks.safetensors` and the item embeddings.

    These are `item_embeddings.safetensors`: `item_embeddings` `[I + 1, D]`, row 0 zeros.
    """
    model = context.config.model
    item_embedding = IdEmbedding(
        context.interactions.num_items, model["hidden_size"], padding_row=model.get("padding_row", False)
    )
    module, metrics = train_recommender(context, item_embedding, BackboneModule)
    with torch.no_grad():
        table_ID = module.backbone.item_embedding.table().float().cpu().clone()
    table_ID[0] = 0
    if module.global_rank == 0:
        save_file({"item_embeddings": table_ID}, context.folder / "item_embeddings.safetensors")
    return metrics
