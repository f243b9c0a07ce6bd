"""Attention with unscaled scores and a trained bias, as T5 has it.

Shapes: R rows, T queries of a row, S keys of a row, A heads, E size of a head.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tslrec.models.dropout import keep_mask


def attend(query_RTAE: Tensor, key_RSAE: Tensor, value_RSAE: Tensor, bias: Tensor | None, dropout: float) -> Tensor:
    """Attention, `[R, T, A * E]`.

    Args:
        query_RTAE: the queries.
        key_RSAE: the keys.
        value_RSAE: the values.
        bias: added to the scores, `[R or 1, A or 1, T or 1, S]`.
        dropout: probability of dropping an attention weight.
    """
    query, key, value = (each.transpose(1, 2) for each in (query_RTAE, key_RSAE, value_RSAE))
    if dropout and query.device.type == "cpu":
        # torch's attention would take these steps too, and draw four times as many random numbers.
        scores = query @ key.transpose(2, 3)
        weights = (scores if bias is None else scores + bias).softmax(-1)
        attended_RATE = (weights * keep_mask(weights, dropout)) @ value
    else:
        if bias is not None:
            bias = bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
        attended_RATE = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout, scale=1.0)
    return attended_RATE.transpose(1, 2).flatten(2)
