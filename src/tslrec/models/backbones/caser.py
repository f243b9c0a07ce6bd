"""Caser (Tang and Wang 2018) as RecBole builds it, or with its authors' output: convolutions over a sequence's vectors.

Shapes: B sequences, L positions, D hidden size, I items (row 0 of a table is padding), V vertical filters, X outputs of
all convolutions, C horizontal filters of a group of heights, K kernel length of the group, P padded positions, N
positions where a filter is computed, W = D × K size of an unfolded window, E size of a user vector.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.models.argument_checks import require_positive, require_probability
from tslrec.models.backbones.base import Backbone
from tslrec.models.dropout import Dropout
from tslrec.models.item_embedding import ItemEmbedding

LONGEST_WINDOW = 2000
"""The largest window: the sizes of its filters grow with its square."""


class Caser(Backbone):
    """Vertical and horizontal convolutions, two fully connected layers, and optionally a user embedding.

    The window is padded behind its items to `max_len`: the vertical filters have a weight per position, so the window's
    width is part of the model. The padding itself is not computed: padded positions are zero vectors, so a filter that
    covers only padding gives its bias, and a filter that reaches into padding equals a shorter one.

    Args:
        item_embedding: see `Backbone`.
        num_users: number of rows of the user embedding.
        max_len: width of the window; horizontal filters have every height from 1 to `max_len`.
        num_vertical: V, filters over all positions of one dimension.
        num_horizontal: filters of each height over all dimensions.
        dropout: probability of dropping an output of the convolutions.
        use_user_embedding: use a trained vector per user, as in the original. Off by default: a new user has no such
            vector, so a model with it can only serve the users that it was trained on.
        recent_first: true: padding lies before the oldest item, as in the authors' code, so that a weight belongs to
            the last item (or the one before it, …) however long the history is. False: padding lies behind the last
            item, as in RecBole.
        own_output: true: the output of the first fully connected layer, the user's vector and a constant score the
            items by a separate output table, as in the authors' code. False: a second fully connected layer, and the
            item table, as in RecBole.
        reg_weight: weight of the L2 norms (not squared) that are added to the loss.

    Raises:
        ValueError: if a number is out of its range.
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
        require_positive(num_vertical=num_vertical, num_horizontal=num_horizontal)
        require_probability(dropout=dropout)
        if reg_weight < 0:
            raise ValueError(f"reg_weight must be 0 or more, not {reg_weight}")
        if max_len > LONGEST_WINDOW:
            raise ValueError(f"max_len {max_len}: there is a filter of every height, up to {LONGEST_WINDOW}")
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
            # The last column is multiplied with the constant 1, so it is a bias per item.
            self.own_output_IE = nn.Parameter(torch.empty(item_embedding.num_items + 1, width + 1))
        self.user_embedding = nn.Parameter(torch.empty(num_users, size)) if use_user_embedding else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises as RecBole: Xavier normal for linear layers, torch's default for convolutions.

        User vectors have the standard deviation 1/D. A separate output table is initialised as in the authors' code:
        standard deviation 1/(E - 1), bias 0.
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
            # Reading the window that is padded in front backwards gives the same model with mirrored filters.
            items_BL = newest_first(items_BL, lengths_B)
        image_BLD = self.embed(items_BL, table_ID)
        vertical_VL = self.vertical.weight[:, : items_BL.shape[1], 0]
        vertical_BVD = torch.matmul(vertical_VL, image_BLD) + cast(Tensor, self.vertical.bias)[:, None]
        horizontal = [
            self.horizontal_responses(image_BLD, heights) for heights in height_groups(items_BL.shape[1], self.max_len)
        ]
        convolved_BX = torch.cat([vertical_BVD.flatten(1), *horizontal], dim=1)
        hidden_BD = F.relu(self.first(self.dropout(convolved_BX)))
        if self.user_embedding is not None:
            hidden_BD = torch.cat([hidden_BD, self.user_embedding[users_B]], dim=1)
        if self.second is not None:
            return F.relu(self.second(hidden_BD))
        return F.pad(hidden_BD, (0, 1), value=1.0)

    def horizontal_responses(self, image_BLD: Tensor, heights: range) -> Tensor:
        """The largest response over time of each horizontal filter of a group of neighbouring heights, `[B, C]`.

        The group is computed as one convolution: shorter filters are padded with zeros, and all are cut to L. Only
        positions where a filter begins on an item are computed; at later positions the response is the filter's bias.

        Args:
            image_BLD: the item vectors.
            heights: neighbouring heights, as `height_groups` gives them.
        """
        length = image_BLD.shape[1]
        layers = [cast(nn.Conv1d, self.horizontal[height - 1]) for height in heights]
        kernel = min(heights[-1], length)
        weight_CDK = torch.cat(
            [F.pad(each.weight[..., :kernel], (0, max(0, kernel - h))) for each, h in zip(layers, heights, strict=True)]
        )
        bias_C = torch.cat([cast(Tensor, each.bias) for each in layers])
        positions = min(length, self.max_len - heights[0] + 1)
        padded_BPD = F.pad(image_BLD, (0, 0, 0, positions + kernel - 1 - length))
        # A matrix product over unfolded windows: torch's convolutions are slower for images this narrow.
        window_BNW = padded_BPD.unfold(1, kernel, 1).flatten(2)
        response_BNC = F.linear(window_BNW, weight_CDK.flatten(1), bias_C)
        # A filter of height h may begin at positions 0 to max_len - h of the window.
        last = torch.arange(self.max_len - heights[0], self.max_len - heights[-1] - 1, -1, device=image_BLD.device)
        last_C = last[:, None].expand(-1, len(layers[0].weight)).flatten()
        if positions > self.max_len - heights[-1] + 1:
            outside_NC = torch.arange(positions, device=image_BLD.device)[:, None] > last_C
            response_BNC = response_BNC.masked_fill(outside_NC, -torch.inf)
        # max(relu(x)) equals relu(max(x)), which is computed on a smaller array.
        largest_BC = response_BNC.amax(dim=1)
        on_padding_C = torch.where(last_C >= length, bias_C, -torch.inf)
        return F.relu(torch.maximum(largest_BC, on_padding_C))

    def regularization(self, table_ID: Tensor | None = None) -> Tensor:
        """`reg_weight` times the sum of the L2 norms of item and user vectors, fully connected weights and filters."""
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


def newest_first(items_BL: Tensor, lengths_B: Tensor) -> Tensor:
    """Reverses the items of each sequence; the padding stays behind them."""
    source_BL = lengths_B[:, None] - 1 - torch.arange(items_BL.shape[1], device=items_BL.device)
    return items_BL.gather(1, source_BL.clamp(min=0)).masked_fill(source_BL < 0, 0)


def height_groups(length: int, max_len: int) -> list[range]:
    """Splits the heights 1 to `max_len` into groups of neighbouring heights that are computed as one convolution.

    Within a group, shorter filters are padded to the longest, which wastes work; so each group holds 4 heights, or
    heights that differ by at most half. All heights from `length` on are one group, since they are cut to `length`.

    Args:
        length: L, the longest sequence of the batch.
        max_len: the largest height.
    """
    groups, height = [], 1
    while height < length:
        following = min(length, height + max(4, height // 2))
        groups.append(range(height, following))
        height = following
    return [*groups, range(height, max_len + 1)]
