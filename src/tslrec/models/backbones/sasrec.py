"""SASRec (Kang and McAuley 2018) as RecBole builds it, or as its authors did: causal self-attention.

Shapes: B sequences, L positions, I items (row 0 of a table is padding), D hidden size, A attention heads, H = D / A
size of a head, E size of a user vector (here D).
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.data.interactions import PADDING
from tslrec.data.packing import Packing, block_causal_mask
from tslrec.models.argument_checks import require_divisor, require_positive, require_probability
from tslrec.models.backbones.base import CausalBackbone, last_position
from tslrec.models.dropout import Dropout
from tslrec.models.item_embedding import ItemEmbedding

LAYER_NORM_EPS = 1e-12
"""Added to the variance in layer normalisation."""


class Attention(nn.Module):
    """Multi-head self-attention and its output projection.

    Padding is on the right, so a causal mask alone hides it from every real position.

    Args:
        hidden_size: D.
        num_heads: A, which must divide D.
        dropout: probability of dropping an attention weight.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, query_input_BLD: Tensor, hidden_BLD: Tensor, mask_B1LL: Tensor | None) -> Tensor:
        """The attention's output at all positions, `[B, L, D]`.

        Args:
            query_input_BLD: input of the queries; if it is the same tensor as `hidden_BLD`, one matrix product gives
                queries, keys and values.
            hidden_BLD: input of the keys and values.
            mask_B1LL: bool, which positions each position sees; None: itself and all earlier ones.
        """
        if query_input_BLD is hidden_BLD:
            query, key, value = (self.split_heads(part) for part in self.query_key_value(hidden_BLD).chunk(3, dim=-1))
        else:
            query, key, value = self.query(query_input_BLD), *self.key_value(hidden_BLD)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask_B1LL, dropout_p=self.dropout_rate(), is_causal=mask_B1LL is None
        )
        return self.merge_heads(attended)

    def last(self, query_input_B1D: Tensor, hidden_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """The attention's output at each sequence's last item only, `[B, 1, D]`, with one query per sequence.

        Args:
            query_input_B1D: input of the query of the last item.
            hidden_BLD: input of the keys and values.
            lengths_B: number of items of each sequence.
        """
        is_item_BL = torch.arange(hidden_BLD.shape[1], device=hidden_BLD.device) < lengths_B[:, None]
        attended = F.scaled_dot_product_attention(
            self.query(query_input_B1D),
            *self.key_value(hidden_BLD),
            attn_mask=is_item_BL[:, None, None],
            dropout_p=self.dropout_rate(),
        )
        return self.merge_heads(attended)

    def query(self, query_input_BLD: Tensor) -> Tensor:
        """Queries, `[B, A, L, H]`."""
        size, layer = query_input_BLD.shape[-1], self.query_key_value
        return self.split_heads(F.linear(query_input_BLD, layer.weight[:size], layer.bias[:size]))

    def key_value(self, hidden_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, `[B, A, L, H]` each."""
        size, layer = hidden_BLD.shape[-1], self.query_key_value
        key_BLD, value_BLD = F.linear(hidden_BLD, layer.weight[size:], layer.bias[size:]).chunk(2, dim=-1)
        return self.split_heads(key_BLD), self.split_heads(value_BLD)

    def split_heads(self, part_BLD: Tensor) -> Tensor:
        """Splits the last dimension into heads, `[B, A, L, H]`."""
        return part_BLD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def merge_heads(self, attended_BALH: Tensor) -> Tensor:
        """Joins the heads and applies the output projection, `[B, L, D]`."""
        return self.output(attended_BALH.transpose(1, 2).flatten(2))

    def dropout_rate(self) -> float:
        """The dropout probability of the current mode: 0 in evaluation."""
        return self.dropout if self.training else 0.0


class Block(nn.Module):
    """RecBole's transformer block: `y = LN(x + Drop(Attention(x)))`, then `LN(y + Drop(FeedForward(y)))` with GELU.

    Args:
        hidden_size: D.
        num_heads: A, which must divide D.
        inner_size: width of the feed-forward layer.
        hidden_dropout: probability of dropping an element of the attention's and the feed-forward layer's output.
        attention_dropout: probability of dropping an attention weight.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, inner_size: int, hidden_dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.attention = Attention(hidden_size, num_heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.expand = nn.Linear(hidden_size, inner_size)
        self.contract = nn.Linear(inner_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(hidden_dropout)

    def forward(self, hidden_BLD: Tensor, mask_B1LL: Tensor | None = None) -> Tensor:
        """The block's output at all positions, `[B, L, D]`; for the mask see `Attention.forward`."""
        query_input_BLD = self.query_input(hidden_BLD)
        return self.add_and_feed_forward(query_input_BLD, self.attention(query_input_BLD, hidden_BLD, mask_B1LL))

    def last(self, hidden_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """The block's output at each sequence's last item only, `[B, D]`."""
        query_input_B1D = self.query_input(last_position(hidden_BLD, lengths_B)[:, None])
        return self.add_and_feed_forward(query_input_B1D, self.attention.last(query_input_B1D, hidden_BLD, lengths_B))[
            :, 0
        ]

    def query_input(self, hidden_BLD: Tensor) -> Tensor:
        """The input of the queries, to which the attention's output is then added."""
        return hidden_BLD

    def add_and_feed_forward(self, hidden_BLD: Tensor, attended_BLD: Tensor) -> Tensor:
        """The rest of the block: adds the attention's output, and runs the feed-forward layer.

        Args:
            hidden_BLD: the tensor that `query_input` gave.
            attended_BLD: the attention's output.
        """
        hidden_BLD = self.attention_norm(hidden_BLD + self.dropout(attended_BLD))
        return self.norm(hidden_BLD + self.dropout(self.contract(F.gelu(self.expand(hidden_BLD)))))


class NormFirstBlock(Block):
    """The authors' block: `q = LN(x)`, `y = LN(q + Attention(q, x, x))`, then `y + FeedForward(y)` with ReLU."""

    def query_input(self, hidden_BLD: Tensor) -> Tensor:
        return self.attention_norm(hidden_BLD)

    def add_and_feed_forward(self, hidden_BLD: Tensor, attended_BLD: Tensor) -> Tensor:
        hidden_BLD = self.norm(hidden_BLD + attended_BLD)
        return hidden_BLD + self.dropout(self.contract(self.dropout(F.relu(self.expand(hidden_BLD)))))


class SASRec(CausalBackbone):
    """Item embeddings plus learned position embeddings, dropout, and blocks of causal self-attention.

    Args:
        item_embedding: see `Backbone`.
        num_users: not used.
        max_len: the longest input, in items; positions are counted from the left.
        num_layers: number of blocks.
        num_heads: A, which must divide D.
        inner_size: width of the feed-forward layers.
        hidden_dropout: probability of dropping an element after the embedding, the attention and the feed-forward
            layer.
        attention_dropout: probability of dropping an attention weight.
        norm_first: true: the authors' model. Items are scaled by √D instead of normalised before the first block,
            queries are normalised before the attention, the feed-forward layers use ReLU, and a norm follows the last
            block. False: RecBole's model.
        own_output: true: items are scored by a trainable output table that is separate from the item embedding. False:
            by the item table, as in both implementations; an item that was just bought then scores high because it is
            similar to itself.

    Raises:
        ValueError: if a number is out of its range, or `num_heads` does not divide D.
    """

    packs = True

    def __init__(
        self,
        item_embedding: ItemEmbedding,
        num_users: int,
        max_len: int,
        *,
        num_layers: int = 2,
        num_heads: int = 2,
        inner_size: int = 256,
        hidden_dropout: float = 0.5,
        attention_dropout: float = 0.5,
        norm_first: bool = False,
        own_output: bool = False,
    ) -> None:
        super().__init__(item_embedding, max_len)
        require_positive(num_layers=num_layers, num_heads=num_heads, inner_size=inner_size)
        require_divisor(divisor="num_heads", by=num_heads, of="hidden_size", number=self.hidden_size)
        require_probability(hidden_dropout=hidden_dropout, attention_dropout=attention_dropout)
        self.position_embedding = nn.Parameter(torch.empty(max_len, self.hidden_size))
        self.norm = nn.LayerNorm(self.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(hidden_dropout)
        self.norm_first = norm_first
        block = NormFirstBlock if norm_first else Block
        self.blocks = nn.ModuleList(
            block(self.hidden_size, num_heads, inner_size, hidden_dropout, attention_dropout) for _ in range(num_layers)
        )
        if own_output:
            self.own_output_IE = nn.Parameter(torch.empty(item_embedding.num_items + 1, self.hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises as RecBole: weights and embeddings from N(0, 0.02), biases 0."""
        nn.init.normal_(self.position_embedding, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if self.own_output_IE is not None:
            with torch.no_grad():
                nn.init.normal_(self.own_output_IE, std=0.02)
                self.own_output_IE[PADDING] = 0

    def block_input(self, items_BL: Tensor, table_ID: Tensor | None, positions_BLD: Tensor) -> Tensor:
        """The input of the first block: item vectors plus position vectors, normalised or scaled, with dropout.

        Args:
            items_BL: item ids.
            table_ID: see `Backbone.forward`.
            positions_BLD: position vectors, `[B, L, D]` or `[L, D]`.
        """
        items_BLD = self.embed(items_BL, table_ID)
        if self.norm_first:
            return self.dropout(items_BLD * self.hidden_size**0.5 + positions_BLD)
        return self.dropout(self.norm(items_BLD + positions_BLD))

    def final_norm(self, hidden: Tensor) -> Tensor:
        """The norm after the last block, which only the authors' model has."""
        return self.norm(hidden) if self.norm_first else hidden

    def all_positions(
        self,
        items_BL: Tensor,
        lengths_B: Tensor,
        users_B: Tensor,
        table_ID: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        if packing is None:
            mask_B1LL, positions = None, self.position_embedding[: items_BL.shape[1]]
        else:
            mask_B1LL = block_causal_mask(packing.sequences_BL)[:, None]
            positions = F.embedding(packing.positions_BL, self.position_embedding)
        hidden_BLD = self.block_input(items_BL, table_ID, positions)
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, mask_B1LL)
        return self.final_norm(hidden_BLD)

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        hidden_BLD = self.block_input(items_BL, table_ID, self.position_embedding[: items_BL.shape[1]])
        *earlier, last = self.blocks
        for block in earlier:
            hidden_BLD = block(hidden_BLD)
        return self.final_norm(cast(Block, last).last(hidden_BLD, lengths_B))
