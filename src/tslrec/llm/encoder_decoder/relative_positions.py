"""T5's attention bias: a number per head for each bucket of distances (Raffel et al. 2020, Section 2.1).

Shapes: A heads, T queries, S keys.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tslrec.llm.encoder_decoder.shape import EncoderDecoderShape


class RelativeBias(nn.Module):
    """The bias of all layers of a stack.

    Args:
        shape: the model's sizes.
        bidirectional: whether keys after the query have buckets of their own (encoder) or share bucket 0 (decoder).
    """

    def __init__(self, shape: EncoderDecoderShape, *, bidirectional: bool) -> None:
        super().__init__()
        self.num_buckets = shape.relative_attention_num_buckets
        self.max_distance = shape.relative_attention_max_distance
        self.bidirectional = bidirectional
        self.weight = nn.Parameter(torch.empty(self.num_buckets, shape.num_heads))

    def forward(self, length: int) -> Tensor:
        """The bias of a sequence, `[A, S, S]`; the bias of a shorter one is its upper left corner.

        Args:
            length: S.
        """
        places_S = torch.arange(length, device=self.weight.device)
        buckets_SS = self.buckets(places_S[None, :] - places_S[:, None])
        return nn.functional.embedding(buckets_SS, self.weight).permute(2, 0, 1)

    def buckets(self, distances: Tensor) -> Tensor:
        """The row of the table for each distance.

        Half of the buckets (of a direction) are for one distance each; the rest grow with the distance's logarithm.

        Args:
            distances: int64, the key's position minus the query's.
        """
        buckets, later = self.num_buckets, torch.zeros_like(distances)
        if self.bidirectional:
            buckets //= 2
            later = (distances > 0).long() * buckets
            distances = distances.abs()
        else:
            distances = (-distances).clamp(min=0)
        exact = buckets // 2
        # In this order of operations because a product in another one rounds some distances into the next bucket.
        logarithm = torch.log(distances.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + (logarithm * (buckets - exact)).long()).clamp(max=buckets - 1)
        return later + torch.where(distances < exact, distances, far)
