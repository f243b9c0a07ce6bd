"""The stage of the linear recommender EASE (Steck 2019): solves it, and evaluates it as every recommender.

Shapes: I items (row 0 of a table is padding).
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save_file

from tslrec.evaluation.user_ranks import save_ranks
from tslrec.stages.context import StageContext
from tslrec.stages.ease.limits import check_ease
from tslrec.stages.ease.restored import WEIGHTS, recommender
from tslrec.stages.ease.solution import item_weights, training_matrix
from tslrec.stages.evaluating import evaluate_restored
from tslrec.system.safetensors_io import ID_MAP


def run(context: StageContext) -> dict[str, Any]:
    """Computes the item weights from the training parts, and tests them.

    Writes `item_weights.safetensors`: `weights` `[I + 1, I + 1]`; and `ranks.safetensors`.

    Returns:
        Of both evaluations, see `evaluate_restored`.

    Raises:
        UserError: if the penalty or the memory is too small.
    """
    interactions, config = context.interactions, context.config.ease
    check_ease(context.config, interactions.num_items)
    weights_II = torch.from_numpy(item_weights(training_matrix(interactions), config.penalty))
    save_file({"weights": weights_II}, context.folder / WEIGHTS, metadata={ID_MAP: interactions.ids.digest})
    restored = recommender(weights_II, int(interactions.lengths.max()))
    validated, _ = evaluate_restored(restored, interactions, context.config, "validation")
    tested, ranks = evaluate_restored(restored, interactions, context.config, "test")
    save_ranks(ranks, context.folder)
    return {**validated, **tested}
