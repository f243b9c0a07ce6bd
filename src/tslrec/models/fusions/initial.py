"""An id embedding that starts from knowledge of the items, and is then trained like any other.

Shapes: I items (row 0 of a table is padding), R some of them, D hidden size of the backbone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tslrec.models.fusions.knowledge_scaling import mean
from tslrec.models.item_embedding import IdEmbedding, ItemEmbedding
from tslrec.system.row_tables import Table, slices

DEVIATION = 0.02
"""The standard deviation with which an id embedding starts otherwise."""

LARGEST_SCALE = 1000
"""The largest `scale`: no training begins well with such vectors."""


class InitialFusion(ItemEmbedding):
    """f = e, where e starts as the knowledge of the item: centred, and all of it multiplied by one number.

    One number for all dimensions keeps what the knowledge tells of their importance; `item_text.whitened=true` makes
    them equal.

    Args:
        num_items: I.
        hidden_size: D.
        knowledge_IH: the knowledge embeddings, `[I + 1, D]`. Row 0 is not used.
        scale: the standard deviation over all numbers of e at the start, as a multiple of `DEVIATION`.

    Raises:
        ValueError: if `knowledge_IH` has another shape or is not finite, or `scale` is out of its bounds.
    """

    takes_width = True
    """Its knowledge must be as wide as the backbone."""

    def __init__(self, num_items: int, hidden_size: int, *, knowledge_IH: Table, scale: float = 1.0) -> None:
        super().__init__(num_items, hidden_size)
        if tuple(knowledge_IH.shape) != (num_items + 1, hidden_size):
            raise ValueError(
                f"needs knowledge embeddings of {num_items} items and padding, {hidden_size} numbers each, got "
                f"{tuple(knowledge_IH.shape)}"
            )
        if not 0 < scale <= LARGEST_SCALE:
            raise ValueError(f"scale must be above 0, {LARGEST_SCALE} at most, not {scale}")
        self.id_embedding = IdEmbedding(num_items, hidden_size)
        with torch.no_grad():
            self.id_embedding.weight.copy_(started(knowledge_IH, DEVIATION * scale))

    def table(self) -> Tensor:
        return self.id_embedding.table()

    def rows(self, items_R: Tensor) -> Tensor:
        return self.id_embedding.rows(items_R)


def started(knowledge_ID: Table, deviation: float) -> Tensor:
    """The knowledge with mean 0 in each dimension and one standard deviation over all numbers; padding is zero.

    Args:
        knowledge_ID: `[I + 1, D]`, read slice by slice.
        deviation: the standard deviation; a table that is constant becomes zero.

    Raises:
        ValueError: if a value is not finite.
    """
    mean_D, squares = mean(knowledge_ID), torch.zeros((), dtype=torch.float64)
    table_ID = torch.zeros(len(knowledge_ID), knowledge_ID.shape[1])
    for part in slices(len(knowledge_ID), start=1):
        squares += (knowledge_ID[part].double() - mean_D).square().sum()
    factor = deviation / (squares / ((len(knowledge_ID) - 1) * knowledge_ID.shape[1])).sqrt().clamp_min(1e-30)
    for part in slices(len(knowledge_ID), start=1):
        table_ID[part] = ((knowledge_ID[part].double() - mean_D) * factor).float()
    return table_ID
