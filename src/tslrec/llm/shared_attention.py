"""Attention for one pass over an instruction and all the examples that share it.

Every layer except attention sees a single long sequence: the instruction's tokens, then the rows of examples one after
the other. So a step reads the weights once, and avoids the small matrix products of a pass over the instruction alone.
Only attention needs to know which token is in which row.

Shapes: A query heads, G key-value heads, E head size, P tokens of the instruction, R rows, T tokens of a row,
S = P + T, N = P + R × T tokens in all, X = A / G × T queries that share a key-value head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "tslrec_shared_instruction"
"""Name under which `attend` is registered with transformers."""

MASK_ALIGNMENT = 8
"""PyTorch's memory-efficient attention reads masks whose rows begin at multiples of so many numbers; every layer would
copy another mask into such a one."""


def install(llm: PreTrainedModel) -> None:
    """Makes a language model use `attend`, which with an ordinary mask is transformers' own "sdpa" attention."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    llm.set_attn_implementation(NAME)


def attend(
    module: torch.nn.Module,
    query_1ANE: Tensor,
    key_1GNE: Tensor,
    value_1GNE: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Computes attention, with the signature that transformers expects.

    Args:
        module: the attention layer, with `num_key_value_groups`.
        query_1ANE: queries, after rotary position embedding.
        key_1GNE: keys, after rotary position embedding.
        value_1GNE: values.
        attention_mask: float `[R, 1, T, S]` from `added_mask`, added to the scores: what each token of the rows sees of
            the instruction and of its row. A mask with one row per query, or None, is an ordinary mask.
        dropout: probability of dropping an attention weight.
        scaling: factor of the scores; None for 1 / sqrt(E).
        others: passed on to ordinary attention.

    Returns:
        The attended values `[1, N, A, E]`, and None instead of attention weights.
    """
    if attention_mask is None or attention_mask.shape[2] == query_1ANE.shape[2]:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query_1ANE, key_1GNE, value_1GNE, attention_mask, dropout=dropout, scaling=scaling, **others
        )
    rows, _, width, seen = attention_mask.shape
    length = seen - width
    heads, groups = query_1ANE.shape[1], key_1GNE.shape[1]
    settings: dict[str, Any] = {"dropout_p": dropout, "scale": scaling}
    instruction_1APE = F.scaled_dot_product_attention(
        query_1ANE[:, :, :length],
        key_1GNE[:, :, :length].repeat_interleave(heads // groups, dim=1),
        value_1GNE[:, :, :length].repeat_interleave(heads // groups, dim=1),
        is_causal=True,
        **settings,
    )
    # Query heads that share a key-value head are laid side by side, so that the keys need not be copied for each head.
    query_RGXE = split_into_rows(query_1ANE, length, rows).unflatten(1, (groups, -1)).flatten(2, 3)
    attended_RGXE = F.scaled_dot_product_attention(
        query_RGXE,
        with_instruction(key_1GNE, length, rows),
        with_instruction(value_1GNE, length, rows),
        attn_mask=attention_mask if heads == groups else attention_mask.repeat(1, 1, heads // groups, 1),
        **settings,
    )
    attended_RATE = attended_RGXE.unflatten(2, (heads // groups, width)).flatten(1, 2)
    attended_1NAE = attended_RATE.transpose(1, 2).flatten(0, 1)[None]
    return torch.cat([instruction_1APE.transpose(1, 2), attended_1NAE], dim=1), None


def split_into_rows(states_1ANE: Tensor, length: int, rows: int) -> Tensor:
    """The tokens after the instruction, split into rows.

    Args:
        states_1ANE: queries, keys or values.
        length: P.
        rows: R.

    Returns:
        `[R, A, T, E]`.
    """
    return states_1ANE[0, :, length:].unflatten(1, (rows, -1)).transpose(0, 1)


def with_instruction(states_1GNE: Tensor, length: int, rows: int) -> Tensor:
    """The instruction's keys or values in front of those of each row.

    Args:
        states_1GNE: keys or values.
        length: P.
        rows: R.

    Returns:
        `[R, G, S, E]`.
    """
    instruction_RGPE = states_1GNE[:, :, :length].expand(rows, -1, -1, -1)
    return torch.cat([instruction_RGPE, split_into_rows(states_1GNE, length, rows)], dim=2)


def added_mask(seen_R1TS: Tensor, dtype: torch.dtype) -> Tensor:
    """Turns a boolean mask into numbers that are added to the attention scores.

    It is made once for all layers; with a boolean mask every layer would make it again.

    Args:
        seen_R1TS: True where a token sees another one.
        dtype: type of the scores.

    Returns:
        `[R, 1, T, S]`: 0 where True, the smallest number of the type where False. On a GPU its rows begin at multiples
        of `MASK_ALIGNMENT` numbers.
    """
    width = seen_R1TS.shape[-1]
    room = width if seen_R1TS.device.type == "cpu" else -(-width // MASK_ALIGNMENT) * MASK_ALIGNMENT
    mask_R1TS = torch.zeros(*seen_R1TS.shape[:-1], room, dtype=dtype, device=seen_R1TS.device)[..., :width]
    return mask_R1TS.masked_fill_(~seen_R1TS, torch.finfo(dtype).min)
