"""FPMC (Rendle et al. 2010): a user's taste and the step from the last item to the next, factorised.

Shapes: B sequences, L positions, I items (row 0 of a table is padding), D hidden size, E = 2 D size of a user vector, U
users.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tslrec.data.interactions import PADDING
from tslrec.data.packing import Packing
from tslrec.models.backbones.base import CausalBackbone, last_position
from tslrec.models.item_embedding import ItemEmbedding


class FPMC(CausalBackbone):
    """Scores item i for user u after item l by `UI[u] · IU[i] + LI[l] · IL[i]`, as RecBole 1.2.1 does.

    Of the four tables, LI, the vectors of items that were just bought, is the item embedding that the backbone is built
    around: it alone reads a history, so a fusion tells the model what it knows of the last item. IU and IL are its
    output table `[IU, IL]`, UI its user vectors. A user who was not trained on has no such vector, so the model serves
    the users of its data set only.

    Args:
        item_embedding: LI; see `Backbone`.
        num_users: U.
        max_len: the longest input, in items; only the last one is read.
        bpr: true: trained by BPR, with one other item drawn uniformly per target, as RecBole does. False: by a softmax,
            like the other backbones.

    Raises:
        ValueError: if there is no other item to draw.
    """

    user_embedding: nn.Parameter
    own_output_IE: nn.Parameter

    def __init__(self, item_embedding: ItemEmbedding, num_users: int, max_len: int, *, bpr: bool = False) -> None:
        super().__init__(item_embedding, max_len)
        if bpr and item_embedding.num_items < 2:
            raise ValueError("bpr needs two items, to compare the target with the other one")
        self.pairwise = bpr
        self.user_embedding = nn.Parameter(torch.empty(num_users, self.hidden_size))
        self.own_output_IE = nn.Parameter(torch.empty(item_embedding.num_items + 1, 2 * self.hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises UI, IU and IL as RecBole: Xavier normal, each table for itself. LI initialises itself."""
        nn.init.xavier_normal_(self.user_embedding)
        with torch.no_grad():
            for table in self.own_output_IE.chunk(2, dim=1):
                nn.init.xavier_normal_(table)
            self.own_output_IE[PADDING] = 0

    def all_positions(
        self,
        items_BL: Tensor,
        lengths_B: Tensor,
        users_B: Tensor,
        table_ID: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        assert packing is None, "a packed row does not tell whose sequences it holds"
        items_BLD = self.embed(items_BL, table_ID)
        users_BLD = self.user_embedding[users_B][:, None].expand_as(items_BLD)
        return torch.cat([users_BLD, items_BLD], dim=2)

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        last_B = last_position(items_BL, lengths_B)
        return torch.cat([self.user_embedding[users_B], self.embed(last_B, table_ID)], dim=1)
