"""The paper's fusion: a gate per dimension between a new id embedding and the LLM's knowledge embedding.

Shapes: I items (row 0 of a table is padding), R some of them, D hidden size of the backbone, H hidden size of the
language model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tslrec.models.fusions.knowledge_scaling import KnowledgeScaling, standardise
from tslrec.models.item_embedding import IdEmbedding, ItemEmbedding
from tslrec.system.row_tables import Table


class GatedFusion(ItemEmbedding):
    """f = g ⊙ e + (1 − g) ⊙ Vh with g = σ(W[e; Vh] + b) (paper, Section 4.2: "a simple gating mechanism").

    The paper gives no formula; this one gates each dimension.

    - e, the id embedding, is freshly initialised and learnt.
    - h, the knowledge embedding, is frozen. It is standardised per dimension over the catalogue, since a few dimensions
      of an LLM's hidden states are far larger than the rest. It is also divided by √H, so that its norm is about 1:
      Adam changes all parameters by steps of similar size, so with a larger h, Vh would change faster than e.
    - V is initialised so that Vh has the scale of e.
    - b starts at 0, where e and Vh have equal weight.

    Args:
        num_items: I.
        hidden_size: D.
        knowledge_IH: the knowledge embeddings, `[I + 1, H]`, read slice by slice: only the scaled table, a frozen
            buffer of the module, is in memory. Row 0 is not used.
        knowledge_scaling: standardises h by the catalogue that earlier weights were trained with; None: by this one.

    Raises:
        ValueError: if `knowledge_IH` is not two-dimensional, has another number of rows, or is not finite.
    """

    knowledge_IH: Tensor

    def __init__(
        self,
        num_items: int,
        hidden_size: int,
        *,
        knowledge_IH: Table,
        knowledge_scaling: KnowledgeScaling | None = None,
    ) -> None:
        super().__init__(num_items, hidden_size)
        if len(knowledge_IH.shape) != 2 or len(knowledge_IH) != num_items + 1:
            raise ValueError(
                f"needs knowledge embeddings of {num_items} items and padding, got {tuple(knowledge_IH.shape)}"
            )
        # Not persistent: the buffer never changes, and the artifact of the stage that made it has it already.
        scaled_IH = (knowledge_scaling or standardise)(knowledge_IH)
        knowledge_size = scaled_IH.shape[1]
        self.register_buffer("knowledge_IH", scaled_IH.mul_(knowledge_size**-0.5), persistent=False)
        self.id_embedding = IdEmbedding(num_items, hidden_size)
        self.knowledge_projection = nn.Linear(knowledge_size, hidden_size, bias=False)
        self.gate = nn.Linear(2 * hidden_size, hidden_size)
        nn.init.normal_(self.knowledge_projection.weight, std=0.02)
        nn.init.xavier_uniform_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def table(self) -> Tensor:
        return self.fuse(self.id_embedding.table(), self.knowledge_IH)

    def rows(self, items_R: Tensor) -> Tensor:
        return self.fuse(self.id_embedding.rows(items_R), self.knowledge_IH[items_R])

    def fuse(self, id_ID: Tensor, knowledge_IH: Tensor) -> Tensor:
        """The fused vectors f.

        Args:
            id_ID: id embeddings e of some or all items.
            knowledge_IH: scaled knowledge embeddings h of the same items.
        """
        knowledge_ID = self.knowledge_projection(knowledge_IH)
        gate_ID = self.gate_values(id_ID, knowledge_ID)
        # Equals g ⊙ e + (1 − g) ⊙ Vh with one multiplication less. Padding stays zero, since its e and h are zero.
        # Autocast gives Vh its own precision and leaves e in float32; lerp takes tensors of one precision.
        return torch.lerp(knowledge_ID, id_ID.to(knowledge_ID.dtype), gate_ID.to(knowledge_ID.dtype))

    def gate_values(self, id_ID: Tensor, knowledge_ID: Tensor) -> Tensor:
        """The gate g of each item and dimension, from 0 (only knowledge) to 1 (only the id embedding).

        Args:
            id_ID: id embeddings e.
            knowledge_ID: projected knowledge embeddings Vh of the same items.
        """
        return torch.sigmoid(self.gate(torch.cat([id_ID, knowledge_ID], dim=1)))

    def id_shares(self) -> Tensor:
        """The mean of each item's gate over the dimensions, `[I + 1]`; 0 is only knowledge, 1 only the id embedding."""
        return self.gate_values(self.id_embedding.table(), self.knowledge_projection(self.knowledge_IH)).mean(dim=1)
