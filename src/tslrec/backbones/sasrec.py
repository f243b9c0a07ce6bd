"""SASRec (Kang and McAuley 2018) as RecBole builds it: causal self-attention with post-norm blocks.

Shapes: B sequences, L positions, D hidden size, A attention heads.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.backbones.base import CausalBackbone, Packing, last_position
from tslrec.backbones.dropout import Dropout
from tslrec.item_embedding import ItemEmbedding
from tslrec.rows import own_past

LAYER_NORM_EPS = 1e-12


class Block(nn.Module):
    """`LN(x + Drop(Attention(x)))`, then `LN(x + Drop(FeedForward(x)))`.

    Padding stands on the right, so a causal mask alone keeps it from every real position.
    """

    def __init__(
        self, hidden_size: int, num_heads: int, inner_size: int, hidden_dropout: float, attention_dropout: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.query_key_value = nn.Linear(hidden_size, 3 * hidden_size)
        self.output = nn.Linear(hidden_size, hidden_size)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.expand = nn.Linear(hidden_size, inner_size)
        self.contract = nn.Linear(inner_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(hidden_dropout)

    def forward(self, hidden_BLD: Tensor, seen_B1LL: Tensor | None = None) -> Tensor:
        """All positions, `[B, L, D]`.

        Args:
            hidden_BLD: states.
            seen_B1LL: which positions each sees; None: those up to itself.
        """
        query, key, value = (self.split(part) for part in self.query_key_value(hidden_BLD).chunk(3, dim=-1))
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen_B1LL, dropout_p=self.rate(), is_causal=seen_B1LL is None
        )
        return self.finish(hidden_BLD, attended.transpose(1, 2).flatten(2))

    def last(self, hidden_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        """The last real position of each sequence only, `[B, D]`: one query a sequence."""
        hidden_size = hidden_BLD.shape[-1]
        here_B1D = last_position(hidden_BLD, lengths_B)[:, None]
        query_weight, key_value_weight = self.query_key_value.weight.split([hidden_size, 2 * hidden_size])
        query_bias, key_value_bias = self.query_key_value.bias.split([hidden_size, 2 * hidden_size])
        query = self.split(F.linear(here_B1D, query_weight, query_bias))
        key, value = (
            self.split(part) for part in F.linear(hidden_BLD, key_value_weight, key_value_bias).chunk(2, dim=-1)
        )
        seen_BL = torch.arange(hidden_BLD.shape[1], device=hidden_BLD.device) < lengths_B[:, None]
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen_BL[:, None, None], dropout_p=self.rate()
        )
        return self.finish(here_B1D, attended.transpose(1, 2).flatten(2))[:, 0]

    def finish(self, hidden_BLD: Tensor, attended_BLD: Tensor) -> Tensor:
        hidden_BLD = self.attention_norm(hidden_BLD + self.dropout(self.output(attended_BLD)))
        return self.norm(hidden_BLD + self.dropout(self.contract(F.gelu(self.expand(hidden_BLD)))))

    def split(self, part_BLD: Tensor) -> Tensor:
        """Heads apart, `[B, A, L, D / A]`."""
        return part_BLD.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def rate(self) -> float:
        return self.attention_dropout if self.training else 0.0


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
    ) -> None:
        super().__init__(item_embedding, max_len)
        self.position_embedding = nn.Parameter(torch.empty(max_len, self.hidden_size))
        self.norm = nn.LayerNorm(self.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(hidden_dropout)
        self.blocks = nn.ModuleList(
            Block(self.hidden_size, num_heads, inner_size, hidden_dropout, attention_dropout) for _ in range(num_layers)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """N(0, .02), biases 0, as in RecBole."""
        nn.init.normal_(self.position_embedding, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def start(self, items_BL: Tensor, table_ID: Tensor | None, positions_BLD: Tensor) -> Tensor:
        return self.dropout(self.norm(self.embed(items_BL, table_ID) + positions_BLD))

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
        return hidden_BLD

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        hidden_BLD = self.start(items_BL, table_ID, self.position_embedding[: items_BL.shape[1]])
        *earlier, last = self.blocks
        for block in earlier:
            hidden_BLD = block(hidden_BLD)
        return cast(Block, last).last(hidden_BLD, lengths_B)
