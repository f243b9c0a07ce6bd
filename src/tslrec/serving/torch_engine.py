"""Recommends with PyTorch.

Shapes: B users, I items (row 0 of a table is padding), K places of a list, C candidates, E size of a user vector, R
users and W items of a block of scores, S (user, item) pairs of histories.
"""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch import Tensor

from tslrec.evaluation.best_items import best_columns, empty_lists, merged, padded_to
from tslrec.evaluation.reranking import reranked_order
from tslrec.serving.engine import Batch, Floats, Ids
from tslrec.stages.restored import Restored
from tslrec.system.errors import UserError

ROWS, COLUMNS = 128, 2**14
"""Users and items of a block of scores: 8 MiB, which a processor's last cache holds until the best are found."""


class TorchEngine:
    """An engine around a restored recommender; see `tslrec.serving.engine.Engine`.

    Where a model reranks the first items of a list, an item keeps the score by which it was retrieved.

    Args:
        restored: the recommender, on the CPU.

    Raises:
        UserError: if a number of the item table is not finite.
    """

    name = "pytorch"

    def __init__(self, restored: Restored) -> None:
        self.restored = restored
        self.max_len = restored.max_len
        self.output_IE = restored.output_IE.float().contiguous()
        self.num_items = len(self.output_IE) - 1
        self.of_thread = threading.local()
        if not bool(torch.isfinite(self.output_IE).all()):
            raise UserError("item table: numbers that are not finite (NaN); train or export again")

    @torch.inference_mode()
    def best_items(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        reranker = self.restored.reranker
        if reranker is None:
            return self.highest(batch, length, candidates_C)
        ids_BX, scores_BX = self.highest(batch, min(max(length, reranker.count), self.num_items), candidates_C)
        lists_BX = torch.from_numpy(ids_BX)
        first_BK = padded_to(lists_BX, torch.from_numpy(scores_BX), reranker.count)[0][:, : reranker.count]
        new_BK = reranker.scores(torch.from_numpy(batch.items_BL), torch.from_numpy(batch.lengths_B), first_BK)
        order_BX = reranked_order(lists_BX, new_BK)[:, :length]
        return lists_BX.gather(1, order_BX).numpy(), torch.from_numpy(scores_BX).gather(1, order_BX).numpy()

    @torch.inference_mode()
    def highest(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        """What `best_items` gives where nothing is reranked."""
        user_BE = self.encode(batch)
        ids_C = None if candidates_C is None else torch.from_numpy(candidates_C)
        table_CE = self.output_IE[1:] if ids_C is None else self.output_IE[ids_C]
        columns_S = batch.seen_items_S - 1 if candidates_C is None else places(batch.seen_items_S, candidates_C)
        found = empty_lists(user_BE)
        for begin in range(0, len(table_CE), COLUMNS):
            block_WE = table_CE[begin : begin + COLUMNS]
            parts = []
            for top in range(0, len(user_BE), ROWS):
                user_RE = user_BE[top : top + ROWS]
                scores_RW = torch.mm(user_RE, block_WE.T, out=self.buffer(len(user_RE), len(block_WE)))
                first, last = np.searchsorted(batch.seen_rows_S, [top, top + ROWS])
                columns = columns_S[first:last] - begin
                inside = (columns >= 0) & (columns < len(block_WE))
                rows = batch.seen_rows_S[first:last][inside] - top
                scores_RW[torch.from_numpy(rows), torch.from_numpy(columns[inside])] = -torch.inf
                parts.append(best_columns(scores_RW, min(length, len(block_WE))))
            columns_BK, scores_BK = (torch.cat(each) for each in zip(*parts, strict=True))
            found = merged(found, (columns_BK + begin, scores_BK), length)
        columns_BK, scores_BK = padded_to(*found, length)
        ids_BK = columns_BK + 1 if ids_C is None else ids_C[columns_BK]
        return ids_BK.masked_fill(scores_BK == -torch.inf, 0).numpy(), scores_BK.numpy()

    @torch.inference_mode()
    def scores(self, batch: Batch, candidates_C: Ids) -> Floats:
        found: Floats = (self.encode(batch) @ self.output_IE[torch.from_numpy(candidates_C)].T).numpy()
        return found

    @torch.inference_mode()
    def user_vectors(self, batch: Batch) -> Floats:
        return self.encode(batch).numpy()

    def item_vectors(self) -> Floats:
        return self.output_IE.numpy()

    def buffer(self, rows: int, columns: int) -> Tensor:
        """This thread's memory for a block of scores `[rows, columns]`; what the last block left in it is lost.

        Memory that is new for each block costs more than the block's product: the system clears it page by page.
        """
        if not hasattr(self.of_thread, "scores") or self.of_thread.scores.numel() < rows * columns:
            self.of_thread.scores = torch.empty(rows * columns)
        scores: Tensor = self.of_thread.scores
        return scores[: rows * columns].view(rows, columns)

    def encode(self, batch: Batch) -> Tensor:
        """User vectors, float32 `[B, E]`."""
        user_BE = self.restored.encode(torch.from_numpy(batch.items_BL), torch.from_numpy(batch.lengths_B)).float()
        if not bool(torch.isfinite(user_BE).all()):
            raise UserError("a user vector is not finite (NaN); look at the weights, or train again")
        return user_BE


def places(items_S: Ids, candidates_C: Ids) -> Ids:
    """The index of each item among the rising candidates; -1 of an item that is none of them."""
    found_S = np.searchsorted(candidates_C, items_S).clip(max=len(candidates_C) - 1)
    return np.where(candidates_C[found_S] == items_S, found_S, -1)
