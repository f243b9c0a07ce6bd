"""The adapted language model that scores every item as the next one: E4SRec (Li et al. 2023).

Shapes: B examples, I items (row 0 is padding), D hidden size of the backbone, H hidden size of the language model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tslrec.interactions import PADDING
from tslrec.llm.packing import PackedExamples
from tslrec.llm.prompt import Prompt
from tslrec.llm.prompted import KeysAndValues, PromptedLLM

if TYPE_CHECKING:
    from peft import PeftModel


class NextItemLLM(PromptedLLM):
    """Language model with LoRA, item projection and a score per item, without bias.

    Args:
        adapted: see `PromptedLLM`, as the others.
    """

    def __init__(
        self, adapted: PeftModel, prompt: Prompt, item_embeddings_ID: Tensor, *, shared_prefix: bool = True
    ) -> None:
        super().__init__(adapted, prompt, item_embeddings_ID, shared_prefix=shared_prefix)
        self.item_head = nn.Embedding(len(item_embeddings_ID), self.knowledge_size, padding_idx=PADDING)
        # As PyTorch's own linear layer starts, which is the original's.
        bound = self.knowledge_size**-0.5
        with torch.no_grad():
            self.item_head.weight[1:].uniform_(-bound, bound)

    def forward(self, examples: PackedExamples, prefix: KeysAndValues | None = None) -> Tensor:
        """The user vectors, `[B, H]`, in the precision of the item head; the arguments are those of `read`."""
        return self.read(examples, prefix).to(self.item_head.weight.dtype)
