"""The paper's fusion: a gate per dimension between a fresh id embedding and the LLM's knowledge embedding.

Shapes: I items (row 0 is padding), D hidden size of the backbone, H hidden size of the language model, K clusters.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tslrec.backbones.dropout import Dropout
from tslrec.fusions.scaling import standardise, whiten
from tslrec.item_embedding import IdEmbedding, ItemEmbedding
from tslrec.streaming import Table

Sides = Literal["both", "inputs", "outputs"]


class GatedFusion(ItemEmbedding):
    """f = g ⊙ e + (1 − g) ⊙ Vh with g = σ(W[e; Vh] + b) (paper, Section 4.2: "a simple gating mechanism").

    The paper gives no formula; this one gates each dimension. e is freshly initialised and learnt. h is frozen and
    standardised per dimension over the catalogue, since an LLM's hidden states have a few dimensions far larger than
    the rest, or whitened; then it is divided by √H, so that its length is about 1. V starts so that Vh has the scale
    of e, and b = `gate_bias` decides where the gate starts.

    Args:
        num_items: I.
        hidden_size: D.
        knowledge_IH: the knowledge embeddings, `[I + 1, H]`, read slice by slice: only the scaled table, a frozen
            buffer of the model, is in memory. Row 0 is not used.
        gate_bias: initial b; 0 gives both sides the same weight, a larger one favours the id embedding.
        whitened_size: whiten h and keep so many of its principal components; None standardises each dimension.
        knowledge_scale: the length of h. V starts as much larger as h is shorter, so a shorter one starts alike and
            learns V more slowly beside e: Adam's steps are as large whatever a weight is multiplied with.
        knowledge_dropout: of Vh, in training.
        sides: where f stands: for the items of the inputs and for those that are scored (`both`), or on one of the
            sides (`inputs`, `outputs`) with e on the other.
        padding_row: see `ItemEmbedding`.
    """

    knowledge_IH: Tensor

    def __init__(
        self,
        num_items: int,
        hidden_size: int,
        *,
        knowledge_IH: Table,
        gate_bias: float = 0.0,
        whitened_size: int | None = None,
        knowledge_scale: float = 1.0,
        knowledge_dropout: float = 0.0,
        sides: Sides = "both",
        padding_row: bool = False,
    ) -> None:
        super().__init__(num_items, hidden_size, padding_row)
        self.sides = sides
        if len(knowledge_IH.shape) != 2 or len(knowledge_IH) != num_items + 1:
            raise ValueError(f"knowledge embeddings of {num_items} items and padding, not {tuple(knowledge_IH.shape)}")
        # Not persistent: the augment stage's artifact holds it already, and it never changes.
        scaled = standardise(knowledge_IH) if whitened_size is None else whiten(knowledge_IH, whitened_size)
        knowledge_size = scaled.shape[1]
        self.register_buffer("knowledge_IH", scaled.mul_(knowledge_scale / knowledge_size**0.5), persistent=False)
        self.id_embedding = IdEmbedding(num_items, hidden_size, padding_row)
        self.knowledge_projection = nn.Linear(knowledge_size, hidden_size, bias=False)
        self.knowledge_dropout = Dropout(knowledge_dropout)
        self.gate = nn.Linear(2 * hidden_size, hidden_size)
        nn.init.normal_(self.knowledge_projection.weight, std=0.02 / knowledge_scale)
        nn.init.xavier_uniform_(self.gate.weight)
        nn.init.constant_(self.gate.bias, gate_bias)

    def table(self) -> Tensor:
        return self.id_embedding.table() if self.sides == "outputs" else self.fused()

    def rows(self, items_R: Tensor) -> Tensor:
        return self.id_embedding.rows(items_R) if self.sides == "outputs" else self.fused_rows(items_R)

    def output_table(self, table_ID: Tensor) -> Tensor:
        match self.sides:
            case "inputs":
                return self.id_embedding.table()
            case "outputs":
                return self.fused()
            case _:
                return table_ID

    def output_rows(self, items_R: Tensor, rows_RD: Tensor) -> Tensor:
        match self.sides:
            case "inputs":
                return self.id_embedding.rows(items_R)
            case "outputs":
                return self.fused_rows(items_R)
            case _:
                return rows_RD

    def fused(self) -> Tensor:
        """Of all items f, `[I + 1, D]`."""
        return self.fuse(self.id_embedding.table(), self.knowledge_IH)

    def fused_rows(self, items_R: Tensor) -> Tensor:
        """Of these f, `[R, D]`."""
        return self.fuse(self.id_embedding.rows(items_R), self.knowledge_IH[items_R])

    def fuse(self, id_ID: Tensor, knowledge_IH: Tensor) -> Tensor:
        """The fused vectors of the items that both have a row for."""
        knowledge_ID = self.knowledge_dropout(self.knowledge_projection(knowledge_IH))
        gate_ID = self.gate_values(id_ID, knowledge_ID)
        # The same as g ⊙ e + (1 − g) ⊙ Vh with one multiplication less. Row 0 is e alone where padding is a row,
        # and zero otherwise: both e and the standardised h are zero there.
        return torch.lerp(knowledge_ID, id_ID, gate_ID)

    def gate_values(self, id_ID: Tensor, knowledge_ID: Tensor) -> Tensor:
        """g, from 0 (knowledge alone) to 1 (the id embedding alone)."""
        return torch.sigmoid(self.gate(torch.cat([id_ID, knowledge_ID], dim=1)))

    def id_shares(self) -> Tensor:
        """The gate of each item, averaged over dimensions."""
        return self.gate_values(self.id_embedding.table(), self.knowledge_projection(self.knowledge_IH)).mean(dim=1)


class GatedCategories(GatedFusion):
    """The same with the category distribution that the language model infers of an item in the place of its state.

    Args:
        num_items: I.
        hidden_size: D.
        categories_IK: the distributions, `[I + 1, K]`, read slice by slice. Row 0 is not used.
        gate_bias: see `GatedFusion`.
        knowledge_scale: see `GatedFusion`.
        knowledge_dropout: see `GatedFusion`.
        sides: see `GatedFusion`.
        padding_row: see `ItemEmbedding`.
    """

    def __init__(
        self,
        num_items: int,
        hidden_size: int,
        *,
        categories_IK: Table,
        gate_bias: float = 0.0,
        knowledge_scale: float = 1.0,
        knowledge_dropout: float = 0.0,
        sides: Sides = "both",
        padding_row: bool = False,
    ) -> None:
        super().__init__(
            num_items,
            hidden_size,
            knowledge_IH=categories_IK,
            gate_bias=gate_bias,
            knowledge_scale=knowledge_scale,
            knowledge_dropout=knowledge_dropout,
            sides=sides,
            padding_row=padding_row,
        )
