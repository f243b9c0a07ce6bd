"""Makes one recommender of several: the weighted sum of their scores is a dot product again.

Shapes: B users, L positions, I items (row 0 of a table is padding), E size of a member's user vector, F sum of the
members' E, K positions that a member reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tslrec.stages.ensemble.products import Product
from tslrec.stages.ensemble.spread import Spread
from tslrec.stages.restored import Restored


@dataclass(frozen=True)
class Voice:
    """A member as an ensemble hears it.

    Attributes:
        encode: see `Restored.encode`; histories may be longer than what the member reads. Its user vectors are scaled
            so that the scores of members can be summed.
        table_IE: the table that scores items, float32 `[I + 1, E]`.
        product: of user vectors with that table.
        max_len: the longest input that it reads, in items.
    """

    encode: Callable[[Tensor, Tensor], Tensor]
    table_IE: Tensor
    product: Product
    max_len: int


def voice_of(restored: Restored, scores: str) -> Voice:
    """A member with user vectors that give its z-scores, but for their mean, or its raw scores.

    Args:
        restored: the member.
        scores: `z` or `raw` (`EnsembleConfig.scores`).
    """
    table_IE = restored.output_IE.float()
    product = Product(table_IE)
    spread = Spread(product) if scores == "z" else None

    def encode(items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        user_BE = restored.encode(*last_items(items_BL, lengths_B, restored.max_len)).float()
        return user_BE if spread is None else (user_BE * spread.inverse(user_BE)[:, None]).float()

    return Voice(encode, table_IE, product, restored.max_len)


def combined(voices: Sequence[Voice], weights: Sequence[float]) -> Restored:
    """The recommender whose score is the weighted sum of the members' scores.

    A member's score of an item with row `t_i` is `s_i = u · t_i`. Its z-score is `(s_i - m) / σ` with the mean `m` and
    the standard deviation `σ` over the items. Of the sum over members k of `w_k (s_ki - m_k) / σ_k`, the part
    `Σ_k w_k m_k / σ_k` is the same for all items of a user, so it changes no rank and is left out. What is left is
    `Σ_k (w_k u_k / σ_k) · t_ki`: the dot product of the concatenated vectors `[w_1 u_1 / σ_1, w_2 u_2 / σ_2, …]` with
    the concatenated rows `[t_1i, t_2i, …]`. See `Spread` for `σ_k`. With raw scores the `σ_k` are 1.

    Args:
        voices: the members.
        weights: of the members; one with the weight 0 is left out.

    Returns:
        The recommender, which reads as many items as the member that reads most.
    """
    heard = [(voice, weight) for voice, weight in zip(voices, weights, strict=True) if weight > 0]

    def encode(items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        return torch.cat([voice.encode(items_BL, lengths_B) * weight for voice, weight in heard], dim=1)

    def scores(user_BF: Tensor) -> Tensor:
        parts = user_BF.split([voice.table_IE.shape[1] for voice, _ in heard], dim=1)
        total_BI = heard[0][0].product(parts[0])
        for (voice, _), part_BE in zip(heard[1:], parts[1:], strict=True):
            total_BI += voice.product(part_BE)
        return total_BI

    table_IF = torch.cat([voice.table_IE for voice, _ in heard], dim=1)
    is_wide = any(voice.product.is_wide for voice, _ in heard)
    return Restored(
        encode, table_IF, max(voice.max_len for voice, _ in heard), faster_scores=scores if is_wide else None
    )


def last_items(items_BL: Tensor, lengths_B: Tensor, max_len: int) -> tuple[Tensor, Tensor]:
    """The last `max_len` items of each history, padded on the right, `[B, K]`, and how many they are `[B]`.

    Args:
        items_BL: item ids, padded with 0 on the right.
        lengths_B: number of items of each history.
        max_len: items at most.
    """
    if items_BL.shape[1] <= max_len:
        return items_BL, lengths_B
    kept_B = lengths_B.clamp(max=max_len)
    place_K = torch.arange(max_len, device=items_BL.device)
    index_BK = ((lengths_B - kept_B)[:, None] + place_K).clamp(max=items_BL.shape[1] - 1)
    return items_BL.gather(1, index_BK).masked_fill(place_K >= kept_B[:, None], 0), kept_B
