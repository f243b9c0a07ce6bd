"""BERT4Rec (Sun et al. 2019): bidirectional self-attention that tells masked items, as RecBole 1.2.1 builds it.

Shapes: B sequences, L positions, I items (row 0 of a table is padding), D hidden size, E = D + 1 size of a user vector,
W positions of an input with its mask.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.data.interactions import PADDING
from tslrec.data.masking import Masking
from tslrec.data.packing import Packing
from tslrec.models.argument_checks import require_divisor, require_positive, require_probability
from tslrec.models.backbones.base import MaskedBackbone
from tslrec.models.backbones.sasrec import LAYER_NORM_EPS, Block
from tslrec.models.dropout import Dropout
from tslrec.models.item_embedding import ItemEmbedding


class BERT4Rec(MaskedBackbone):
    """Item vectors plus positions, RecBole's transformer blocks without a causal mask, and a layer before the scores.

    Trained on whole training parts of two or more items, in which some items are masked (`Masking`); the scores of all
    items at a mask are the state's products with the item table, plus a bias per item. For a recommendation the mask
    stands behind the last item. RecBole trains on prefixes without their targets instead, so that it never sees a
    user's last training item, and its rules (`recbole_rules`) lose further items.

    Args:
        item_embedding: see `Backbone`.
        num_users: not used.
        max_len: positions, counted from the left, the mask's included: a history of `max_len` items loses its oldest.
        num_layers: number of blocks.
        num_heads: heads of the attention, which must divide D.
        inner_size: width of the feed-forward layers.
        hidden_dropout: probability of dropping an element after the embedding, the attention and the feed-forward
            layer.
        attention_dropout: probability of dropping an attention weight.
        mask_ratio: probability that an item is masked, in steps that mask items at random.
        ft_ratio: probability that a step masks the last item of every row instead.
        recbole_rules: true: a mask at a row's first item does not count, nor do more than `mask_ratio` × `max_len`
            masks of a row, and a recommendation drops the oldest item even where there is room. False: all masks count,
            and the oldest item is dropped only where the history has `max_len` items.

    Raises:
        ValueError: if a number is out of its range, or `num_heads` does not divide D.
    """

    masking: Masking
    output_bias_I: nn.Parameter

    def __init__(
        self,
        item_embedding: ItemEmbedding,
        num_users: int,
        max_len: int,
        *,
        num_layers: int = 2,
        num_heads: int = 2,
        inner_size: int = 256,
        hidden_dropout: float = 0.2,
        attention_dropout: float = 0.2,
        mask_ratio: float = 0.2,
        ft_ratio: float = 0.5,
        recbole_rules: bool = False,
    ) -> None:
        super().__init__(item_embedding, max_len)
        require_positive(num_layers=num_layers, num_heads=num_heads, inner_size=inner_size)
        require_divisor(divisor="num_heads", by=num_heads, of="hidden_size", number=self.hidden_size)
        require_probability(hidden_dropout=hidden_dropout, attention_dropout=attention_dropout)
        if max_len < 2:
            raise ValueError(f"max_len must be 2 or more, not {max_len}: the mask takes one position")
        for name, ratio in {"mask_ratio": mask_ratio, "ft_ratio": ft_ratio}.items():
            if not 0 <= ratio <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {ratio}")
        self.recbole_rules = recbole_rules
        most_counted = max(1, int(mask_ratio * max_len)) if recbole_rules else None
        self.masking = Masking(ft_ratio, mask_ratio, most_counted, counts_first=not recbole_rules)
        size = self.hidden_size
        self.mask_D = nn.Parameter(torch.empty(size))
        self.position_embedding = nn.Parameter(torch.empty(max_len, size))
        self.norm = nn.LayerNorm(size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(hidden_dropout)
        self.blocks = nn.ModuleList(
            Block(size, num_heads, inner_size, hidden_dropout, attention_dropout) for _ in range(num_layers)
        )
        self.output = nn.Linear(size, size)
        self.output_norm = nn.LayerNorm(size, eps=LAYER_NORM_EPS)
        self.output_bias_I = nn.Parameter(torch.zeros(item_embedding.num_items + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises as RecBole: weights and vectors from N(0, 0.02), biases 0."""
        nn.init.normal_(self.mask_D, std=0.02)
        nn.init.normal_(self.position_embedding, std=0.02)
        for module in (*self.blocks.modules(), self.output):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def block_input(
        self, items_BL: Tensor, is_item_BL: Tensor, positions_BLD: Tensor, table_ID: Tensor | None
    ) -> Tensor:
        """The input of the first block, `[B, L, D]`.

        Args:
            items_BL: item ids; 0 for a mask.
            is_item_BL: where there is an item or a mask.
            positions_BLD: position vectors, `[B, L, D]` or `[L, D]`.
            table_ID: see `Backbone.forward`.
        """
        items_BLD = self.embed(items_BL, table_ID)
        is_mask_BL = is_item_BL & (items_BL == PADDING)
        items_BLD = torch.where(is_mask_BL[..., None], self.mask_D.to(items_BLD.dtype), items_BLD)
        return self.dropout(self.norm(items_BLD + positions_BLD))

    def user_vectors(self, hidden: Tensor) -> Tensor:
        """The layer before the scores, and the 1 that the items' biases are multiplied with, `[…, E]`."""
        return F.pad(self.output_norm(F.gelu(self.output(hidden))), (0, 1), value=1.0)

    def all_positions(
        self,
        items_BL: Tensor,
        lengths_B: Tensor,
        users_B: Tensor,
        table_ID: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        if packing is None:
            is_item_BL = torch.arange(items_BL.shape[1], device=items_BL.device) < lengths_B[:, None]
            positions, mask_B1LL = self.position_embedding[: items_BL.shape[1]], is_item_BL[:, None, None]
        else:
            sequences_BL = packing.sequences_BL
            is_item_BL = sequences_BL >= 0
            positions = F.embedding(packing.positions_BL, self.position_embedding)
            mask_B1LL = (sequences_BL[:, :, None] == sequences_BL[:, None, :])[:, None]
        hidden_BLD = self.block_input(items_BL, is_item_BL, positions, table_ID)
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, mask_B1LL)
        return self.user_vectors(hidden_BLD)

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        items_BW, lengths_B = self.with_mask(items_BL, lengths_B)
        is_item_BW = torch.arange(items_BW.shape[1], device=items_BW.device) < lengths_B[:, None]
        hidden_BWD = self.block_input(items_BW, is_item_BW, self.position_embedding[: items_BW.shape[1]], table_ID)
        *earlier, last = self.blocks
        for block in earlier:
            hidden_BWD = block(hidden_BWD, is_item_BW[:, None, None])
        return self.user_vectors(cast(Block, last).last(hidden_BWD, lengths_B))

    def with_mask(self, items_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Puts a mask behind the last item, `[B, W]`, and drops the oldest item where it must; W = min(L + 1, max_len).

        Returns:
            The items, 0 for the mask, and the lengths with it.
        """
        dropped_B = torch.ones_like(lengths_B) if self.recbole_rules else (lengths_B == self.max_len).to(torch.int64)
        source_BW = torch.arange(items_BL.shape[1] + 1, device=items_BL.device) + dropped_B[:, None]
        # Both columns behind the items are 0: the mask, and what is read beyond it.
        items_BW = F.pad(items_BL, (0, 2)).gather(1, source_BW)[:, : self.max_len]
        return items_BW, lengths_B + 1 - dropped_B
