"""SASRec (Kang and McAuley 2018) as RecBole builds it, or as its authors did: causal self-attention.

Shapes: B sequences, L positions, D hidden size, A attention heads.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.backbones.base import CausalBackbone, Packing, last_position
from tslrec.backbones.dropout import Dropout
from tslrec.interactions import PADDING
from tslrec.item_embedding import ItemEmbedding
from tslrec.rows import own_past

LAYER_NORM_EPS = 1e-12


class Attention(nn.Module):
    """Self-attention with a query, key and value of each position, and the projection of what was attended to.

    Padding stands on the right, so a causal mask alone keeps it from every real position.
    """

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)

    def forward(self, asking_BLD: Tensor, hidden_BLD: Tensor, seen_B1LL: Tensor | None) -> Tensor:
        """All positions, `[B, L, D]`.

        Args:
            asking_BLD: what queries are made of.
            hidden_BLD: what keys and values are made of; where it is the same, all three are one product.
            seen_B1LL: which positions each sees; None: those up to itself.
        """
        if asking_BLD is hidden_BLD:
            query, key, value = (self.split(part) for part in self.query_key_value(hidden_BLD).chunk(3, dim=-1))
        else:
            query, key, value = self.query(asking_BLD), *self.key_value(hidden_BLD)
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen_B1LL, dropout_p=self.rate(), is_causal=seen_B1LL is None
        )
        return self.merge(attended)

    def last(self, asking_B1D: Tensor, hidden_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """The last real position of each sequence only, `[B, 1, D]`: one query a sequence."""
        seen_BL = torch.arange(hidden_BLD.shape[1], device=hidden_BLD.device) < lengths_B[:, None]
        attended = F.scaled_dot_product_attention(
            self.query(asking_B1D),
            *self.key_value(hidden_BLD),
            attn_mask=seen_BL[:, None, None],
            dropout_p=self.rate(),
        )
        return self.merge(attended)

    def query(self, asking_BLD: Tensor) -> Tensor:
        size, layer = asking_BLD.shape[-1], self.query_key_value
        return self.split(F.linear(asking_BLD, layer.weight[:size], layer.bias[:size]))

    def key_value(self, hidden_BLD: Tensor) -> tuple[Tensor, Tensor]:
        size, layer = hidden_BLD.shape[-1], self.query_key_value
        key_BLD, value_BLD = F.linear(hidden_BLD, layer.weight[size:], layer.bias[size:]).chunk(2, dim=-1)
        return self.split(key_BLD), self.split(value_BLD)

    def split(self, part_BLD: Tensor) -> Tensor:
        """Heads apart, `[B, A, L, D / A]`."""
        return part_BLD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def merge(self, attended_BALE: Tensor) -> Tensor:
        return self.output(attended_BALE.transpose(1, 2).flatten(2))

    def rate(self) -> float:
        return self.dropout if self.training else 0.0


class Block(nn.Module):
    """RecBole's: `LN(x + Drop(Attention(x)))`, then `LN(x + Drop(FeedForward(x)))`."""

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

    def forward(self, hidden_BLD: Tensor, seen_B1LL: Tensor | None = None) -> Tensor:
        """All positions, `[B, L, D]`; the arguments are those of `Attention`."""
        asking_BLD = self.asking(hidden_BLD)
        return self.finish(asking_BLD, self.attention(asking_BLD, hidden_BLD, seen_B1LL))

    def last(self, hidden_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """The last real position of each sequence only, `[B, D]`."""
        asking_B1D = self.asking(last_position(hidden_BLD, lengths_B)[:, None])
        return self.finish(asking_B1D, self.attention.last(asking_B1D, hidden_BLD, lengths_B))[:, 0]

    def asking(self, hidden_BLD: Tensor) -> Tensor:
        """What queries are made of, and what the attention's output is added to."""
        return hidden_BLD

    def finish(self, hidden_BLD: Tensor, attended_BLD: Tensor) -> Tensor:
        hidden_BLD = self.attention_norm(hidden_BLD + self.dropout(attended_BLD))
        return self.norm(hidden_BLD + self.dropout(self.contract(F.gelu(self.expand(hidden_BLD)))))


class NormFirstBlock(Block):
    """The authors': `q = LN(x)`, `y = LN(q + Attention(q, x, x))`, then `y + FeedForward(y)` with relu."""

    def asking(self, hidden_BLD: Tensor) -> Tensor:
        return self.attention_norm(hidden_BLD)

    def finish(self, hidden_BLD: Tensor, attended_BLD: Tensor) -> Tensor:
        hidden_BLD = self.norm(hidden_BLD + attended_BLD)
        return hidden_BLD + self.dropout(self.contract(self.dropout(F.relu(self.expand(hidden_BLD)))))


class SASRec(CausalBackbone):
    """Item and learned position embeddings, dropout, and blocks of causal self-attention.

    Args:
        item_embedding: see `Backbone`.
        num_users: not used.
        max_len: L; positions count from the left.
        num_layers: blocks.
        num_heads: A, which divides D.
        inner_size: width of the feed-forward layers.
        hidden_dropout: after the embedding, the attention and the feed-forward.
        attention_dropout: of the attention weights.
        norm_first: as in the authors' code: items scaled by √D instead of normalised before the first block, queries
            normalised before attention, relu, and a norm at the end. False is RecBole's model.
        own_output: items are scored by a free table of their own. False, in both codes: by the item table, where an
            item that was just bought scores high because it is like itself.
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
        """N(0, .02), biases 0, as in RecBole."""
        nn.init.normal_(self.position_embedding, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if self.own_output_IE is not None:
            with torch.no_grad():
                nn.init.normal_(self.own_output_IE, std=0.02)
                self.own_output_IE[PADDING] = 0

    def start(self, items_BL: Tensor, table_ID: Tensor | None, positions_BLD: Tensor) -> Tensor:
        items_BLD = self.embed(items_BL, table_ID)
        if self.norm_first:
            return self.dropout(items_BLD * self.hidden_size**0.5 + positions_BLD)
        return self.dropout(self.norm(items_BLD + positions_BLD))

    def end(self, hidden: Tensor) -> Tensor:
        """What follows the last block."""
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
            seen_B1LL, positions = None, self.position_embedding[: items_BL.shape[1]]
        else:
            seen_B1LL = own_past(packing.sequences_BL)[:, None]
            positions = F.embedding(packing.positions_BL, self.position_embedding)
        hidden_BLD = self.start(items_BL, table_ID, positions)
        for block in self.blocks:
            hidden_BLD = block(hidden_BLD, seen_B1LL)
        return self.end(hidden_BLD)

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        hidden_BLD = self.start(items_BL, table_ID, self.position_embedding[: items_BL.shape[1]])
        *earlier, last = self.blocks
        for block in earlier:
            hidden_BLD = block(hidden_BLD)
        return self.end(cast(Block, last).last(hidden_BLD, lengths_B))
