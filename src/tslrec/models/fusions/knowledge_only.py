"""An item is what is known of it and nothing else: a linear map of frozen knowledge, without an id embedding.

Shapes: I items (row 0 of a table is padding), R some of them, D hidden size of the backbone, H size of the knowledge.
"""

from __future__ import annotations

from torch import Tensor, nn

from tslrec.models.fusions.knowledge_scaling import KnowledgeScaling, frozen_knowledge
from tslrec.models.item_embedding import ItemEmbedding
from tslrec.system.row_tables import Table


class KnowledgeOnlyFusion(ItemEmbedding):
    """f = Vh, where h is scaled as `GatedFusion` scales it: standardised per dimension over the items, divided by √H.

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
        # Not persistent: the buffer never changes, and the artifact of the stage that made it has it already.
        frozen_IH = frozen_knowledge(num_items, knowledge_IH, knowledge_scaling)
        self.register_buffer("knowledge_IH", frozen_IH, persistent=False)
        self.knowledge_projection = nn.Linear(frozen_IH.shape[1], hidden_size, bias=False)
        nn.init.normal_(self.knowledge_projection.weight, std=0.02)

    def table(self) -> Tensor:
        # Padding stays zero, since its h is zero.
        projected_ID: Tensor = self.knowledge_projection(self.knowledge_IH)
        return projected_ID

    def rows(self, items_R: Tensor) -> Tensor:
        projected_RD: Tensor = self.knowledge_projection(self.knowledge_IH[items_R])
        return projected_RD
