"""An adapted language model that reads prompts of tokens, and scores tokens at their ends.

Shapes: B prompts, R rows, T tokens of a row, P tokens of the prefix, J states of a prompt, V tokens of the vocabulary,
C candidate tokens, H hidden size of the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tslrec.data.packing import block_causal_mask
from tslrec.llm.prompt_packing import PackedPrompts
from tslrec.llm.shared_prefix import KeysAndValues, SharedPrefixLLM
from tslrec.llm.trained_layers import at_least_float32

if TYPE_CHECKING:
    from peft import PeftModel


class TextLLM(SharedPrefixLLM[PackedPrompts]):
    """A language model with LoRA and its own frozen head for tokens, of which only the states at the ends are read.

    Args:
        adapted: see `SharedPrefixLLM`.
        prefix: see `SharedPrefixLLM`; without `shared_prefix` it is not read, prompts are run whole.
        token_head_VH: the head for tokens `[V, H]`; None: the token embeddings are the head.
        shared_prefix: see `SharedPrefixLLM`.

    Attributes:
        token_head: the head; None where the token embeddings are.
    """

    def __init__(
        self,
        adapted: PeftModel,
        prefix: Sequence[int],
        token_head_VH: Tensor | None = None,
        *,
        shared_prefix: bool = True,
    ) -> None:
        super().__init__(adapted, prefix if shared_prefix else [], shared_prefix=shared_prefix)
        self.token_head = None if token_head_VH is None else nn.Embedding.from_pretrained(token_head_VH, freeze=True)

    def end_states(self, prompts: PackedPrompts, prefix: KeysAndValues | None = None, *, count: int = 1) -> Tensor:
        """The last hidden states at the last tokens of each prompt.

        Args:
            prompts: packed with this model's prefix, and with `kept` at least `count`.
            prefix: see `states`.
            count: J, how many tokens.

        Returns:
            `[B, J, H]`.
        """
        (state_RTH,) = self.states(prompts, prefix)
        before_J = torch.arange(1 - count, 1, device=prompts.last_B.device)
        return state_RTH.flatten(0, 1)[prompts.last_B[:, None] + before_J]

    def head_VH(self) -> Tensor:  # noqa: N802 - a shape suffix is a capital letter
        """The head for tokens, `[V, H]`."""
        source = self._token_embedding() if self.token_head is None else self.token_head
        weight = source.weight
        assert isinstance(weight, Tensor)
        return weight

    def loss(self, states_BJH: Tensor, labels_BJ: Tensor) -> Tensor:
        """Cross-entropy over the whole vocabulary, summed over the labels.

        Args:
            states_BJH: of `end_states`.
            labels_BJ: the token that follows each; -100: none is asked for.
        """
        return F.cross_entropy(self.logits(states_BJH).flatten(0, 1), labels_BJ.flatten(), reduction="sum")

    def logits(self, states: Tensor) -> Tensor:
        """The scores of all tokens, float32 `[…, V]`.

        Args:
            states: hidden states `[…, H]`.
        """
        return at_least_float32(F.linear(states, self.head_VH().to(states.dtype)))

    def token_scores(self, states_BH: Tensor, tokens_C: Tensor) -> Tensor:
        """The logits of some tokens, float32 `[B, C]`; no other rows of the head are read.

        Args:
            states_BH: hidden states.
            tokens_C: token ids.
        """
        return at_least_float32(states_BH) @ at_least_float32(self.head_VH()[tokens_C]).T

    def _positions(self, examples: PackedPrompts) -> Tensor:
        return examples.positions_RT

    def _seen(self, examples: PackedPrompts) -> Tensor:
        # A prompt that was cut on the left sees only what it still has of the prefix.
        shared_RT = examples.shared_B[examples.examples_RT.clamp(min=0)]
        prefix_RTP = torch.arange(len(self.instruction_P), device=shared_RT.device) < shared_RT[..., None]
        return torch.cat([prefix_RTP, block_causal_mask(examples.examples_RT)], dim=2)[:, None]

    def _embed(self, tokens_RT: Tensor) -> Tensor:
        vectors_RTH: Tensor = self._token_embedding()(tokens_RT)
        return vectors_RTH
