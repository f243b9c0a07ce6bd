"""The paper's variant CI: each item's preliminary category as a feature with a learnable embedding.

Shapes: I items (row 0 of a table is padding), R some of them, D hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.models.item_embedding import IdEmbedding, ItemEmbedding


class CategoryFusion(ItemEmbedding):
    """f = e + c (paper, Section 5.2): id embedding plus category embedding, both freshly initialised and learnt.

    Args:
        num_items: I.
        hidden_size: D.
        clusters_I: the preliminary category of each item, int64 `[I + 1]`, from 0; -1 for padding.

    Raises:
        ValueError: if `clusters_I` has another length, or an item has no category.
    """

    categories_I: Tensor

    def __init__(self, num_items: int, hidden_size: int, *, clusters_I: Tensor) -> None:
        super().__init__(num_items, hidden_size)
        if clusters_I.shape != (num_items + 1,) or int(clusters_I[1:].min()) < 0:
            raise ValueError(
                f"needs a cluster for each of {num_items} items and padding, got {tuple(clusters_I.shape)}"
            )
        # Shift by one: row 0 of the category embedding belongs to padding and stays zero.
        self.register_buffer("categories_I", (clusters_I + 1).clamp_min(0), persistent=False)
        self.id_embedding = IdEmbedding(num_items, hidden_size)
        self.category_weight = nn.Parameter(torch.empty(int(clusters_I.max()) + 2, hidden_size))
        nn.init.normal_(self.category_weight, std=0.02)
        with torch.no_grad():
            self.category_weight[0] = 0

    def table(self) -> Tensor:
        return self.id_embedding.table() + F.embedding(self.categories_I, self.category_weight, padding_idx=0)

    def rows(self, items_R: Tensor) -> Tensor:
        categories_R = self.categories_I[items_R]
        return self.id_embedding.rows(items_R) + F.embedding(categories_R, self.category_weight, padding_idx=0)
