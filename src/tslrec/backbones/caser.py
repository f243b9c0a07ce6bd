"""Caser (Tang and Wang 2018) as RecBole builds it, or with its authors' output: convolutions over a sequence's vectors.

Shapes: B sequences, L positions, N of them computed, D hidden size, F filters of a height, K kernel length, C channels
(heights of a band × F), I items, E size of a user vector.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.backbones.base import Backbone
from tslrec.backbones.dropout import Dropout
from tslrec.item_embedding import ItemEmbedding


class Caser(Backbone):
    """Vertical and horizontal convolutions, two fully connected layers, and the user's own vector if asked for.

    The window is padded behind its items to `max_len`: the vertical filters have a weight per position, so the window's
    width is part of the model. It is not part of the work: padding is a vector of zeros, so a filter that covers
    nothing else gives its bias, and a filter that reaches into padding is as good as a shorter one.

    Args:
        item_embedding: see `Backbone`.
        num_users: rows of the user embedding.
        max_len: L; horizontal filters have every height from 1 to L.
        num_vertical: filters over all positions of one dimension.
        num_horizontal: filters of each height over all dimensions.
        dropout: of the convolutions' output.
        use_user_embedding: as in the original. Off by default: a user who was not trained on has no such vector, and
            without it the model can be served.
        recent_first: padding lies before a history's oldest item, as in the authors' code, so that a weight belongs to
            the last item, or the one before, however long the history is. False is RecBole's: behind the last one.
        own_output: as in the authors' code: what the first fully connected layer gives, the user's own vector and a
            constant score the items by a table of their own. False is RecBole's: a second layer, and the item table.
        reg_weight: of the L2 norms (not squared) that are added to the loss.
    """

    draws_by_dropout = True
    second: nn.Linear | None

    def __init__(
        self,
        item_embedding: ItemEmbedding,
        num_users: int,
        max_len: int,
        *,
        num_vertical: int = 4,
        num_horizontal: int = 8,
        dropout: float = 0.4,
        use_user_embedding: bool = False,
        recent_first: bool = False,
        own_output: bool = False,
        reg_weight: float = 1e-4,
    ) -> None:
        super().__init__(item_embedding, max_len)
        size = self.hidden_size
        self.reg_weight = reg_weight
        self.recent_first = recent_first
        self.vertical = nn.Conv1d(max_len, num_vertical, 1)
        self.horizontal = nn.ModuleList(nn.Conv1d(size, num_horizontal, height) for height in range(1, max_len + 1))
        self.dropout = Dropout(dropout)
        self.first = nn.Linear(num_vertical * size + num_horizontal * max_len, size)
        width = 2 * size if use_user_embedding else size
        self.second = None if own_output else nn.Linear(width, size)
        if own_output:
            # The constant's column is the bias of an item.
            self.own_output_IE = nn.Parameter(torch.empty(item_embedding.num_items + 1, width + 1))
        self.user_embedding = nn.Parameter(torch.empty(num_users, size)) if use_user_embedding else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """RecBole's: xavier for linear layers, N(0, 1/D) for user vectors, torch's own for convolutions.

        A table of its own starts as the authors': N(0, 1/E), without bias.
        """
        for layer in (self.first, self.second):
            if layer is not None:
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)
        if self.user_embedding is not None:
            nn.init.normal_(self.user_embedding, std=1 / self.hidden_size)
        if self.own_output_IE is not None:
            with torch.no_grad():
                nn.init.normal_(self.own_output_IE, std=1 / (self.own_output_IE.shape[1] - 1))
                self.own_output_IE[:, -1] = 0
                self.own_output_IE[0] = 0

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        if self.recent_first:
            # A window with its padding in front, read backwards: what is learnt is the same with the filters turned.
            items_BL = turned(items_BL, lengths_B)
        if self.item_embedding.padding_row:
            # There padding is a vector like any other, and takes part.
            items_BL = F.pad(items_BL, (0, self.max_len - items_BL.shape[1]))
        image_BLD = self.embed(items_BL, table_ID)
        vertical_VL = self.vertical.weight[:, : items_BL.shape[1], 0]
        vertical_BVD = torch.matmul(vertical_VL, image_BLD) + cast(Tensor, self.vertical.bias)[:, None]
        horizontal = [self.band(image_BLD, heights) for heights in bands(items_BL.shape[1], self.max_len)]
        convolved_BX = torch.cat([vertical_BVD.flatten(1), *horizontal], dim=1)
        hidden_BD = F.relu(self.first(self.dropout(convolved_BX)))
        if self.user_embedding is not None:
            hidden_BD = torch.cat([hidden_BD, self.user_embedding[users_B]], dim=1)
        if self.second is not None:
            return F.relu(self.second(hidden_BD))
        return F.pad(hidden_BD, (0, 1), value=1.0)

    def band(self, image_BLD: Tensor, heights: range) -> Tensor:
        """The largest response over time of all horizontal filters of neighbouring heights, `[B, C]`.

        They are one convolution: the shorter filters are filled up with zeros, and all are cut to the items that there
        are. A place is computed only where the filter begins on an item; beyond, the response is its bias.
        """
        length = image_BLD.shape[1]
        layers = [cast(nn.Conv1d, self.horizontal[height - 1]) for height in heights]
        kernel = min(heights[-1], length)
        weight_CDK = torch.cat(
            [F.pad(each.weight[..., :kernel], (0, max(0, kernel - h))) for each, h in zip(layers, heights, strict=True)]
        )
        bias_C = torch.cat([cast(Tensor, each.bias) for each in layers])
        places = min(length, self.max_len - heights[0] + 1)
        padded_BXD = F.pad(image_BLD, (0, 0, 0, places + kernel - 1 - length))
        # A matrix product over unfolded windows; torch's convolutions are slower for images this narrow.
        window_BNX = padded_BXD.unfold(1, kernel, 1).flatten(2)
        response_BNC = F.linear(window_BNX, weight_CDK.flatten(1), bias_C)
        # Where a filter of height h may begin: in the window's first max_len - h + 1 places.
        last_C = torch.tensor(
            [self.max_len - h for h in heights for _ in range(len(layers[0].weight))], device=image_BLD.device
        )
        if places > self.max_len - heights[-1] + 1:
            outside_NC = torch.arange(places, device=image_BLD.device)[:, None] > last_C
            response_BNC = response_BNC.masked_fill(outside_NC, -torch.inf)
        # The largest of relu(x) is relu of the largest x, which is a smaller array.
        largest_BC = response_BNC.amax(dim=1)
        on_padding_C = torch.where(last_C >= length, bias_C, -torch.inf)
        return F.relu(torch.maximum(largest_BC, on_padding_C))

    def regularization(self, table_ID: Tensor | None = None) -> Tensor:
        """`reg_weight` times the L2 norms of item and user vectors, fully connected weights and all filters."""
        weights = [
            self.table(table_ID),
            self.vertical.weight,
            self.first.weight,
            *([] if self.second is None else [self.second.weight]),
            *([] if self.own_output_IE is None else [self.own_output_IE]),
            *(layer.weight for layer in self.horizontal.children()),
        ]
        if self.user_embedding is not None:
            weights.append(self.user_embedding)
        return self.reg_weight * torch.stack([torch.linalg.vector_norm(weight) for weight in weights]).sum()


def turned(items_BL: Tensor, lengths_B: Tensor) -> Tensor:
    """The items of each sequence, the last one first; padding stays behind them."""
    places_BL = lengths_B[:, None] - 1 - torch.arange(items_BL.shape[1], device=items_BL.device)
    return items_BL.gather(1, places_BL.clamp(min=0)).masked_fill(places_BL < 0, 0)


def bands(length: int, max_len: int) -> list[range]:
    """Neighbouring heights, 1 to `max_len`, that are convolved at once.

    All that are cut to `length` are one band; the others are bands whose heights differ by half at most.
    """
    found, height = [], 1
    while height < length:
        following = min(length, height + max(4, height // 2))
        found.append(range(height, following))
        height = following
    return [*found, range(height, max_len + 1)]
