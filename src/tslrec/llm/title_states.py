"""What a pretrained language model knows of items by their titles: the mean hidden state over a title's tokens.

Shapes: B titles, R rows, T tokens of a row, N = R × T, P tokens before every title, H hidden size of the language
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.llm.prompt import encode_text, start_tokens
from tslrec.llm.prompt_packing import PackedPrompts, PromptPacker
from tslrec.llm.readout import LAST, layers_read
from tslrec.llm.shared_prefix import KeysAndValues
from tslrec.llm.text import TextLLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BEFORE = "Title:"
"""The text before every title. Language models let all tokens attend to the first one, whose state is far larger than
the others and tells nothing of a title; so the first token must be none of the title's."""


class TitleLLM(TextLLM):
    """A pretrained language model, without any adapter, that reads titles.

    Args:
        base: the language model, without its head for tokens.
        prefix: token ids before every title, from `tokens_before`.
        shared_prefix: run them once for all titles, and pack several titles into a row; False runs each title whole, in
            a row of its own.

    Attributes:
        packer: packs titles as this model reads them.
    """

    def __init__(self, base: PreTrainedModel, prefix: Sequence[int], *, shared_prefix: bool = True) -> None:
        super().__init__(base, prefix, shared_prefix=shared_prefix)  # type: ignore[arg-type]
        self.prefix = tuple(prefix)
        self.packer = PromptPacker(self.prefix if shared_prefix else (), packs=shared_prefix)
        self.requires_grad_(False).eval()

    @property
    def llm(self) -> PreTrainedModel:
        """The language model itself: no adapter's wrapper is around it."""
        return cast("PreTrainedModel", self.adapted)

    def mean_states(
        self, titles: Sequence[NDArray[np.int64]], layer: str = LAST, prefix: KeysAndValues | None = None
    ) -> Tensor:
        """The mean of a layer's hidden states over the tokens of each title, without those before it.

        Args:
            titles: token ids of each, one or more.
            layer: see `layers_read`.
            prefix: result of `run_prefix`, for reading many batches.

        Returns:
            Float32 `[B, H]`.

        Raises:
            UserError: if the model has no such layer.
        """
        packed = self.packer([np.concatenate([self.prefix, title]).astype(np.int64) for title in titles])
        packed = packed.to(self.instruction_P.device)
        states = self.states(packed, prefix, every_layer=layer != LAST)
        read = layers_read(states, layer, "item_text.layer")
        state_RTH = torch.stack([each.float() for each in read]).mean(dim=0)
        with torch.autocast(state_RTH.device.type, enabled=False):
            return shares(packed, len(titles), len(self.prefix)) @ state_RTH.flatten(0, 1)


def shares(packed: PackedPrompts, num_titles: int, before: int) -> Tensor:
    """What each token counts for in the mean of each title, float32 `[B, N]`.

    Args:
        packed: the titles.
        num_titles: B.
        before: tokens before a title, which do not count.
    """
    of_title_N = packed.examples_RT.flatten()
    counted_N = packed.positions_RT.flatten() >= before
    titles_B = torch.arange(num_titles, device=of_title_N.device)
    counted_BN = ((of_title_N == titles_B[:, None]) & counted_N).float()
    return counted_BN / counted_BN.sum(dim=1, keepdim=True)


def tokens_before(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens before every title: BOS, where the tokenizer begins its texts with it, and `BEFORE`."""
    return [*start_tokens(tokenizer, BEFORE), *encode_text(tokenizer, BEFORE)]
