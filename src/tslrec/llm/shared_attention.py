"""Attention of one pass over an instruction and all the examples that share it.

Every layer but attention sees a single long row: the instruction's tokens, then those of the rows of examples one row
after the other. So the weights are read once a step, and no matrix product is as small as the instruction alone. Only
attention needs to know who is in which row.

Shapes: A heads, G key-value heads, E head size, P tokens of the instruction, R rows of T tokens, S = P + T,
N = P + R × T tokens in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "tslrec_shared_instruction"


def install(llm: PreTrainedModel) -> bool:
    """Makes a language model attend by `attend`, which is its own attention wherever a mask is an ordinary one.

    Returns:
        False, with nothing changed, for a model that does not attend by torch's scaled dot product attention.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if llm.config._attn_implementation not in {"sdpa", NAME}:
        return False
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    llm.set_attn_implementation(NAME)
    return True


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
    """Attention as transformers asks for it; `[1, N, A, E]`.

    Args:
        module: the layer, with `num_key_value_groups`.
        query_1ANE: rotated.
        key_1GNE: rotated.
        value_1GNE: values.
        attention_mask: float `[R, 1, T, S]`, added to the scores, from `added_mask`: what each token of the rows sees
            of the instruction and of its row. Any mask that covers the queries as they stand is an ordinary one.
        dropout: of the attention weights.
        scaling: of the scores.
        others: for ordinary attention.
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
    # The queries of the heads that share a key go side by side, so that no key is copied for each of them.
    query_RGXE = in_rows(query_1ANE, length, rows).unflatten(1, (groups, -1)).flatten(2, 3)
    attended_RGXE = F.scaled_dot_product_attention(
        query_RGXE,
        behind_instruction(key_1GNE, length, rows),
        behind_instruction(value_1GNE, length, rows),
        attn_mask=attention_mask.repeat(1, 1, heads // groups, 1),
        **settings,
    )
    attended_RATE = attended_RGXE.unflatten(2, (heads // groups, width)).flatten(1, 2)
    attended_1NAE = attended_RATE.transpose(1, 2).flatten(0, 1)[None]
    return torch.cat([instruction_1APE.transpose(1, 2), attended_1NAE], dim=1), None


def in_rows(states_1ANE: Tensor, length: int, rows: int) -> Tensor:
    """What stands behind the instruction, in its rows, `[R, A, T, E]`."""
    return states_1ANE[0, :, length:].unflatten(1, (rows, -1)).transpose(0, 1)


def behind_instruction(states_1GNE: Tensor, length: int, rows: int) -> Tensor:
    """What each row sees, the instruction and itself, `[R, G, S, E]`."""
    instruction_RGPE = states_1GNE[:, :, :length].expand(rows, -1, -1, -1)
    return torch.cat([instruction_RGPE, in_rows(states_1GNE, length, rows)], dim=2)


def added_mask(seen_R1TS: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero where one sees and the smallest number of the type where not, to be added to the scores, `[R, 1, T, S]`.

    Made once for all layers, which would each make it of a mask of booleans.
    """
    return torch.zeros(seen_R1TS.shape, dtype=dtype, device=seen_R1TS.device).masked_fill(
        ~seen_R1TS, torch.finfo(dtype).min
    )
