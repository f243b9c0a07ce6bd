"""Recommends the lists that a language model generates, which knows no scores of single items.

Shapes: B users, K places of a list, C candidates, S (user, item) pairs of histories.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import torch

from tslrec.evaluation.best_items import padded_to
from tslrec.serving.engine import Batch, Floats, Ids
from tslrec.stages.restored import ListGenerator
from tslrec.system.errors import UserError


class ListEngine:
    """An engine around a restored list generator; see `tslrec.serving.engine.Engine`.

    A list ends after `ListGenerator.length` items; the places behind them are empty. There are no scores but those of
    the listed items, no user vectors and no item vectors.

    Args:
        generator: on the CPU.
    """

    name = "pytorch"

    def __init__(self, generator: ListGenerator) -> None:
        self.generator = generator
        self.max_len = generator.max_len
        self.num_items = generator.num_items

    @torch.inference_mode()
    def best_items(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        rows_S, items_S = batch.seen_rows_S, batch.seen_items_S
        if candidates_C is not None:
            rows_S, items_S = with_others(batch, np.setdiff1d(np.arange(1, self.num_items + 1), candidates_C))
        found = self.generator.lists(
            torch.from_numpy(batch.items_BL),
            torch.from_numpy(batch.lengths_B),
            torch.from_numpy(rows_S),
            torch.from_numpy(items_S),
            None if batch.users_B is None else torch.from_numpy(batch.users_B),
        )
        ids_BK, scores_BK = (each[:, :length] for each in padded_to(*found, length))
        return ids_BK.numpy(), scores_BK.float().numpy()

    def scores(self, batch: Batch, candidates_C: Ids) -> Floats:
        self.refuse("scores of single items")

    def user_vectors(self, batch: Batch) -> Floats:
        self.refuse("user vectors")

    def item_vectors(self) -> Floats:
        self.refuse("item vectors")

    def refuse(self, what: str) -> NoReturn:
        """Refuses what only a recommender with vectors has.

        Raises:
            UserError: always.
        """
        raise UserError(f"a method that generates its lists has no {what}; ask for recommendations")


def with_others(batch: Batch, others_X: Ids) -> tuple[Ids, Ids]:
    """What must not be listed, with further items for all users.

    Args:
        batch: histories, and what must not be listed.
        others_X: the further items.

    Returns:
        Rows, not falling, and items.
    """
    users_B = np.arange(len(batch.lengths_B))
    rows_S = np.concatenate([batch.seen_rows_S, np.repeat(users_B, len(others_X))])
    items_S = np.concatenate([batch.seen_items_S, np.tile(others_X, len(users_B))])
    order_S = np.argsort(rows_S, kind="stable")
    return rows_S[order_S], items_S[order_S]
