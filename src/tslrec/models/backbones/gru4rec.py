"""GRU4Rec (Hidasi et al. 2016) as RecBole builds it: a recurrent network over the items.

Shapes: B sequences, L positions, I items, D hidden size of the item table, G size of the GRU's state.
"""

from __future__ import annotations

from torch import Tensor, nn

from tslrec.data.packing import Packing
from tslrec.models.argument_checks import require_positive, require_probability
from tslrec.models.backbones.base import CausalBackbone, last_position
from tslrec.models.dropout import Dropout
from tslrec.models.item_embedding import ItemEmbedding


class GRU4Rec(CausalBackbone):
    """Dropout on the item vectors, a GRU without biases, and a linear layer from G back to D.

    Args:
        item_embedding: see `Backbone`.
        num_users: not used.
        max_len: the longest input, in items.
        gru_size: G.
        num_layers: layers of the GRU.
        dropout: probability of dropping an element of the item vectors.

    Raises:
        ValueError: if a number is out of its range.
    """

    def __init__(
        self,
        item_embedding: ItemEmbedding,
        num_users: int,
        max_len: int,
        *,
        gru_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.3,
    ) -> None:
        super().__init__(item_embedding, max_len)
        require_positive(gru_size=gru_size, num_layers=num_layers)
        require_probability(dropout=dropout)
        self.dropout = Dropout(dropout)
        self.gru = nn.GRU(self.hidden_size, gru_size, num_layers, bias=False, batch_first=True)
        self.projection = nn.Linear(gru_size, self.hidden_size)
        for name, parameter in self.gru.named_parameters():
            assert "weight" in name
            nn.init.xavier_uniform_(parameter)
        nn.init.xavier_normal_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def states(self, items_BL: Tensor, table_ID: Tensor | None) -> Tensor:
        """The last layer's state after each item, `[B, L, G]`."""
        states_BLG, _ = self.gru(self.dropout(self.embed(items_BL, table_ID)))
        return states_BLG

    def all_positions(
        self,
        items_BL: Tensor,
        lengths_B: Tensor,
        users_B: Tensor,
        table_ID: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        assert packing is None, "a recurrent state would carry over into the row's next sequence"
        return self.projection(self.states(items_BL, table_ID))

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        return self.projection(last_position(self.states(items_BL, table_ID), lengths_B))
