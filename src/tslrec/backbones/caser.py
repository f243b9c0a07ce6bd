"""Caser (Tang and Wang 2018) as RecBole builds it: convolutions over the image that a sequence's vectors make.

Shapes: B sequences, L positions (always `max_len`), D hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.backbones.base import Backbone
from tslrec.item_embedding import ItemEmbedding


class Caser(Backbone):
    """Vertical and horizontal convolutions, two fully connected layers, and the user's own vector if asked for.

    The window is padded on the right to `max_len`: the vertical filters have a weight per position, so the window's
    width is part of the model.

    Args:
        item_embedding: see `Backbone`.
        num_users: rows of the user embedding.
        max_len: L; horizontal filters have every height from 1 to L.
        num_vertical: filters over all positions of one dimension.
        num_horizontal: filters of each height over all dimensions.
        dropout: of the convolutions' output.
        use_user_embedding: as in the original. Off by default: a user who was not trained on has no such vector, and
            without it the model can be served.
        reg_weight: of the L2 norms (not squared) that are added to the loss.
    """

    def __init__(
        self,
        item_embedding: ItemEmbedding,
        num_users: int,
        max_len: int,
        *,
        num_vertical: int = 8,
        num_horizontal: int = 16,
        dropout: float = 0.4,
        use_user_embedding: bool = False,
        reg_weight: float = 1e-4,
    ) -> None:
        super().__init__(item_embedding, max_len)
        size = self.hidden_size
        self.reg_weight = reg_weight
        self.vertical = nn.Conv1d(max_len, num_vertical, 1)
        self.horizontal = nn.ModuleList(nn.Conv1d(size, num_horizontal, height) for height in range(1, max_len + 1))
        self.dropout = nn.Dropout(dropout)
        self.first = nn.Linear(num_vertical * size + num_horizontal * max_len, size)
        self.second = nn.Linear(2 * size if use_user_embedding else size, size)
        self.user_embedding = nn.Parameter(torch.empty(num_users, size)) if use_user_embedding else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """RecBole's: xavier for linear layers, N(0, 1/D) for user vectors, torch's own for convolutions."""
        for layer in (self.first, self.second):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        if self.user_embedding is not None:
            nn.init.normal_(self.user_embedding, std=1 / self.hidden_size)

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        window_BL = F.pad(items_BL, (0, self.max_len - items_BL.shape[1]))
        image_BLD = self.embed(window_BL, table_ID)
        vertical_BX = self.vertical(image_BLD).flatten(1)
        image_BDL = image_BLD.transpose(1, 2).contiguous()
        # The largest of relu(x) is relu of the largest x, which is a smaller array.
        horizontal_BX = torch.cat([F.relu(layer(image_BDL).amax(dim=2)) for layer in self.horizontal], dim=1)
        hidden_BD = F.relu(self.first(self.dropout(torch.cat([vertical_BX, horizontal_BX], dim=1))))
        if self.user_embedding is not None:
            hidden_BD = torch.cat([hidden_BD, self.user_embedding[users_B]], dim=1)
        return F.relu(self.second(hidden_BD))

    def regularization(self, table_ID: Tensor | None = None) -> Tensor:
        """`reg_weight` times the L2 norms of item and user vectors, fully connected weights and all filters."""
        weights = [
            self.table(table_ID),
            self.vertical.weight,
            self.first.weight,
            self.second.weight,
            *(layer.weight for layer in self.horizontal.children()),
        ]
        if self.user_embedding is not None:
            weights.append(self.user_embedding)
        return self.reg_weight * torch.stack([torch.linalg.vector_norm(weight) for weight in weights]).sum()
