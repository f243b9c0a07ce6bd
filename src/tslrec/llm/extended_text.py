"""A language model that reads and writes tokens which its vocabulary lacks: their vectors are trained beside LoRA.

Shapes: R rows, T tokens of a row, V tokens that the model knows, N new ones, H hidden size of the language model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tslrec.llm.text import TextLLM
from tslrec.llm.trained_layers import at_least_float32

if TYPE_CHECKING:
    from peft import PeftModel


class ExtendedTextLLM(TextLLM):
    """A language model that reads prompts of tokens, of which those from V on are new.

    The vectors of new tokens are drawn from torch's random state, with the standard deviation of the known ones. The
    head for tokens gets as many rows: those same vectors where the token embeddings are the head, else rows of their
    own. They are float32.

    Args:
        adapted: see `SharedPrefixLLM`.
        num_new: N, possibly 0.
        token_head_VH: see `TextLLM`.
        packs: whether prompts share rows; False runs each in a row of its own.

    Attributes:
        num_known: V.
        new_tokens: the vectors of the new tokens; None without any.
        new_head: their rows of the head; None without any, and where `new_tokens` are the head, too.
    """

    def __init__(
        self, adapted: PeftModel, num_new: int, token_head_VH: Tensor | None = None, *, packs: bool = True
    ) -> None:
        super().__init__(adapted, [], token_head_VH, shared_prefix=packs)
        table = self._token_embedding().weight
        assert isinstance(table, Tensor)
        self.num_known = len(table)
        self.new_tokens = drawn_like(table, num_new) if num_new else None
        self.new_head = drawn_like(token_head_VH, num_new) if num_new and token_head_VH is not None else None

    def trained_layers(self) -> dict[str, nn.Module]:
        """See `SharedPrefixLLM`."""
        layers = {"new_tokens": self.new_tokens, "new_head": self.new_head}
        return {name: layer for name, layer in layers.items() if layer is not None}

    def logits(self, states: Tensor) -> Tensor:
        """The scores of all tokens, float32 `[…, V + N]`; see `TextLLM`."""
        known = super().logits(states)
        rows = self.new_tokens if self.new_head is None else self.new_head
        if rows is None:
            return known
        return torch.cat([known, at_least_float32(F.linear(states, rows.weight.to(states.dtype)))], dim=-1)

    def embed(self, tokens_RT: Tensor) -> Tensor:
        """The vectors of tokens, `[R, T, H]`."""
        if self.new_tokens is None:
            return super()._embed(tokens_RT)
        is_new_RT = tokens_RT >= self.num_known
        known_RTH = super()._embed(tokens_RT.masked_fill(is_new_RT, 0))
        new_RTH = self.new_tokens((tokens_RT - self.num_known).clamp(min=0)).to(known_RTH.dtype)
        # Not `torch.where`; see `PromptedLLM`.
        is_new_RT1 = is_new_RT[..., None]
        return known_RTH.masked_fill(is_new_RT1, 0.0) + new_RTH.masked_fill(~is_new_RT1, 0.0)

    def _embed(self, tokens_RT: Tensor) -> Tensor:
        return self.embed(tokens_RT)


def drawn_like(table_VH: Tensor, num_rows: int) -> nn.Embedding:
    """Rows in float32, drawn with the standard deviation of a table's numbers.

    Args:
        table_VH: the table.
        num_rows: how many rows.
    """
    rows = nn.Embedding(num_rows, table_VH.shape[1], device=table_VH.device, dtype=torch.float32)
    nn.init.normal_(rows.weight, std=float(table_VH.detach().float().std()))
    return rows
