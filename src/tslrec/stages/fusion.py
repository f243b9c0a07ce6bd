"""Stage 5 of the pipeline: a new backbone whose item table is fused with knowledge of the items (paper, Section 4.2).

Shapes: I items (row 0 is padding), H size of an item's knowledge.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save_file

from tslrec.stages.carrying import Carried
from tslrec.stages.context import StageContext
from tslrec.stages.fusion_inputs import Sources, fused_items
from tslrec.stages.fusion_scaling import save_scaling, scaling_before
from tslrec.stages.outputs import GATES
from tslrec.stages.recommender import train_recommender
from tslrec.stages.soft_targets import read_soft_targets
from tslrec.training.next_item import NextItemModule


class FusionRecModule(NextItemModule):
    """Next-item training of a new backbone whose item table is a fusion (paper, Section 4.2)."""


def run(context: StageContext) -> dict[str, Any]:
    """Trains a new backbone around the configured fusion; of a run that is continued, the earlier one trains on.

    In a method with the stage `soft_targets` it trains on what the teacher gave, too.

    Writes `weights.safetensors`, `ranks.safetensors` and, for a fusion with a gate, `gates.safetensors`: `id_shares`
    `[I + 1]` (see `ItemEmbedding.id_shares`). The frozen inputs of the fusion are not copied; they stay in the
    artifacts of the stages that made them. A run that is continued also writes `knowledge_scaling.safetensors` and, if
    it has cold items, `cold_rows.safetensors`.

    Returns:
        See `train_recommender`.

    Raises:
        UserError: if an input of the fusion does not fit the data set; see also `train_recommender`.
    """
    scaling, carried = None, None
    if context.earlier is not None:
        scaling = scaling_before(context.config, context.earlier)
        carried = Carried.of(context.earlier, "fusion", context.interactions)
    sources = Sources(context.config, context.interactions, context.inputs)
    item_embedding = fused_items(sources, scaling)
    soft_targets = read_soft_targets(sources) if "soft_targets" in context.config.method.stages else None
    module, metrics = train_recommender(context, item_embedding, FusionRecModule, carried, soft_targets)
    if scaling is not None and module.global_rank == 0:
        save_scaling(scaling, context.folder)
    with torch.no_grad():
        id_shares_I = item_embedding.id_shares()
    if id_shares_I is not None and module.global_rank == 0:
        save_file({"id_shares": id_shares_I.float().cpu()}, context.folder / GATES)
    return metrics
