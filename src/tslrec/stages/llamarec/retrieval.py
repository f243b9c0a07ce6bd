"""What the retriever, the backbone of stage 1, gives the ranker: each user's first items, and the target's rank.

Shapes: P ranking protocols, U users of an evaluation, B users of a batch, X items of a list, E size of a user vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tslrec.data.datamodule import SequenceDataModule
from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.evaluation.ranking import target_ranks, top_lists
from tslrec.models.backbones.base import Backbone


@dataclass(frozen=True)
class Retrieved:
    """The retriever's answer for the users of an evaluation, under both ranking protocols.

    Attributes:
        users_U: rows of the users in the data set, rising.
        targets_U: item ids to rank.
        lists_PUX: item ids, best first; 0 is an empty place.
        ranks_PU: float64, the ranks of the targets (see `target_ranks`).
    """

    users_U: NDArray[np.int64]
    targets_U: NDArray[np.int64]
    lists_PUX: NDArray[np.int32]
    ranks_PU: NDArray[np.float64]

    def holds_target(self, count: int) -> NDArray[np.bool_]:
        """Whether each target is among the first `count` of its list, `[P, U]`."""
        found_PU: NDArray[np.bool_] = (self.lists_PUX[:, :, :count] == self.targets_U[:, None]).any(axis=2)
        return found_PU


@torch.inference_mode()
def retrieve(
    backbone: Backbone, data: SequenceDataModule, users_U: NDArray[np.int64], held_out: int, length: int
) -> Retrieved:
    """Ranks the targets of an evaluation and lists the first items, as the backbone's own evaluation ranks them.

    Args:
        backbone: the retriever, in evaluation mode.
        data: makes its inputs.
        users_U: rows of the users in the data set, rising.
        held_out: the target's position from the end of the history, `TEST` or `VALIDATION`.
        length: X.
    """
    device = next(backbone.buffers(), next(backbone.parameters(), torch.zeros(()))).device
    table_ID = backbone.item_embedding.table()
    output_IE = backbone.output_table(table_ID)
    lists_PUX = np.zeros((len(PROTOCOLS), len(users_U), length), dtype=np.int32)
    ranks_PU = np.zeros((len(PROTOCOLS), len(users_U)))
    order = np.argsort(data.interactions.lengths[users_U], kind="stable")
    for places_B in np.split(order, range(data.eval_batch_size, len(order), data.eval_batch_size)):
        if len(places_B) == 0:
            continue
        batch = data.collate_evaluation(users_U[places_B], held_out)
        assert batch.seen_rows is not None
        assert batch.seen_items is not None
        items_BL, lengths_B, users_B, targets_B, rows_S, seen_S = (
            each.to(device)
            for each in (
                batch.items_BL,
                batch.lengths_B,
                batch.users_B,
                batch.targets,
                batch.seen_rows,
                batch.seen_items,
            )
        )
        user_BE = backbone(items_BL, lengths_B, users_B, table_ID)
        ranks = target_ranks(user_BE, output_IE, targets_B, rows_S, seen_S)
        lists = top_lists(user_BE, output_IE, length, rows_S, seen_S)
        for protocol in range(len(PROTOCOLS)):
            ranks_PU[protocol, places_B] = ranks[protocol].cpu().numpy()
            lists_PUX[protocol, places_B] = lists[protocol].cpu().numpy()
    targets_U = data.interactions.items[data.interactions.offsets[users_U + 1] - held_out].astype(np.int64)
    return Retrieved(users_U, targets_U, lists_PUX, ranks_PU)
