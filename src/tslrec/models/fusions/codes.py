"""Codes of items as features: a learnable embedding of each, beside the id.

Shapes: I items (row 0 of a table is padding), R some of them, C codes of an item, D hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.models.item_embedding import IdEmbedding, ItemEmbedding


class CodesFusion(ItemEmbedding):
    """f = e + Σ c: id embedding plus the embeddings of the item's codes, one of each level, all learnt.

    All begin at N(0, .02). With codes of one level it is the paper's variant CI (`CategoryFusion`).

    Args:
        num_items: I.
        hidden_size: D.
        codes_IC: the codes of each item, int64 `[I + 1, C]`, from 0 in each level; -1 for padding.

    Raises:
        ValueError: if `codes_IC` has another number of rows, or an item lacks a code.
    """

    rows_IC: Tensor

    def __init__(self, num_items: int, hidden_size: int, *, codes_IC: Tensor) -> None:
        super().__init__(num_items, hidden_size)
        if codes_IC.dim() != 2 or len(codes_IC) != num_items + 1 or int(codes_IC[1:].min()) < 0:
            raise ValueError(f"needs codes of each of {num_items} items and padding, got {tuple(codes_IC.shape)}")
        sizes_C = codes_IC.amax(dim=0) + 1
        # All levels are in one table, whose row 0 belongs to padding and stays zero.
        rows_IC = codes_IC + 1 + sizes_C.cumsum(dim=0) - sizes_C
        rows_IC[0] = 0
        self.register_buffer("rows_IC", rows_IC, persistent=False)
        self.id_embedding = IdEmbedding(num_items, hidden_size)
        self.code_weight = nn.Parameter(torch.empty(int(sizes_C.sum()) + 1, hidden_size))
        nn.init.normal_(self.code_weight, std=0.02)
        with torch.no_grad():
            self.code_weight[0] = 0

    def table(self) -> Tensor:
        return self.id_embedding.table() + self.sums(self.rows_IC)

    def rows(self, items_R: Tensor) -> Tensor:
        return self.id_embedding.rows(items_R) + self.sums(self.rows_IC[items_R])

    def sums(self, rows_RC: Tensor) -> Tensor:
        """The sum of the embeddings of each item's codes, `[R, D]`.

        Args:
            rows_RC: rows of `code_weight`, 0 for padding.
        """
        sums_RD: Tensor = F.embedding_bag(rows_RC, self.code_weight, mode="sum", padding_idx=0)
        return sums_RD
