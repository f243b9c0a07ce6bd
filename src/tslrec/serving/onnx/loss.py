"""What int8 costs: HR@10 and NDCG@10 of two engines over the test users, leave-one-out, seen items masked.

Shapes: U users, B users of a batch, K places of a list.
"""

from __future__ import annotations

import numpy as np

from tslrec.data.interactions import Interactions
from tslrec.serving.engine import Engine, Ids
from tslrec.serving.onnx.samples import histories_of, targets_of
from tslrec.serving.recommender import BATCH_SIZE

CUTOFF = 10
"""K."""


def accuracy(engine: Engine, interactions: Interactions, users_U: Ids) -> dict[str, float]:
    """HR@10 and NDCG@10 of an engine's lists; each user's last item is the test item.

    A test item that the user had before cannot be recommended, and counts as missed, as in an evaluation.

    Args:
        engine: makes the lists.
        interactions: the data set.
        users_U: users with three items or more.
    """
    histories, targets_U = histories_of(interactions, users_U, without_test=True), targets_of(interactions, users_U)
    length = min(CUTOFF, engine.num_items)
    gain_K = 1 / np.log2(np.arange(2, length + 2))
    hits, gains = 0, 0.0
    for users_B, batch in histories.batches(engine.max_len, BATCH_SIZE, filter_seen=True):
        ids_BK, _ = engine.best_items(batch, length, None)
        found_BK = ids_BK == targets_U[users_B][:, None]
        hits += int(found_BK.sum())
        gains += float((found_BK * gain_K).sum())
    return {f"HR@{CUTOFF}": hits / len(users_U), f"NDCG@{CUTOFF}": gains / len(users_U)}
