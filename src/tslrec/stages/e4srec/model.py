"""The adapted language model that scores every item as the next one: E4SRec (Li et al. 2023).

Shapes: B examples, I items (row 0 is padding), D hidden size of the backbone, H hidden size of the language model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tslrec.data.interactions import PADDING
from tslrec.llm.loading import load_to_train, load_tokenizer
from tslrec.llm.packing import PackedExamples, Packer
from tslrec.llm.prompt import Prompt
from tslrec.llm.prompted import KeysAndValues, PromptedLLM, add_lora, packer_of
from tslrec.llm.trained_layers import at_least_float32
from tslrec.llm.weights_source import ResolvedSource
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.stages.e4srec.prompt import encode_e4srec_prompt
from tslrec.training.deepspeed_zero import gathered

if TYPE_CHECKING:
    from peft import PeftModel


class NextItemLLM(PromptedLLM):
    """A language model with LoRA, an item projection and an item head that scores every item, without bias.

    Args:
        adapted: see `PromptedLLM`.
        prompt: see `PromptedLLM`.
        item_embeddings_ID: see `PromptedLLM`.
        shared_prefix: see `PromptedLLM`.

    Attributes:
        item_head: `[I + 1, H]`; an item's score is the product of its row and the user vector.
    """

    def __init__(
        self, adapted: PeftModel, prompt: Prompt, item_embeddings_ID: Tensor, *, shared_prefix: bool = True
    ) -> None:
        super().__init__(adapted, prompt, item_embeddings_ID, shared_prefix=shared_prefix)
        self.item_head = nn.Embedding(len(item_embeddings_ID), self.knowledge_size, padding_idx=PADDING)
        # The initialisation of PyTorch's linear layer, which the original uses.
        bound = self.knowledge_size**-0.5
        with torch.no_grad():
            self.item_head.weight[1:].uniform_(-bound, bound)

    def trained_layers(self) -> dict[str, nn.Module]:
        return {**super().trained_layers(), "item_head": self.item_head}

    def forward(self, examples: PackedExamples, prefix: KeysAndValues | None = None) -> Tensor:
        """Computes the user vectors, float32 `[B, H]`; the arguments are those of `read`."""
        return at_least_float32(self.read(examples, prefix))

    def item_table(self) -> Tensor:
        """The item head `[I + 1, H]` in float32, also where DeepSpeed has rounded it to 16 bits."""
        return at_least_float32(self.item_head.weight)


def new_e4srec(llm: LLMConfig, lora: LoraConfig, source: ResolvedSource, item_embeddings_ID: Tensor) -> NextItemLLM:
    """Builds E4SRec's model before training.

    Args:
        llm: the configured language model; its LoRA is not read.
        lora: E4SRec's own LoRA.
        source: the language model's weights.
        item_embeddings_ID: the backbone's item embeddings, `[I + 1, D]`.

    Raises:
        UserError: if the weights cannot be loaded.
    """
    base, tokenizer = load_to_train(llm, source)
    prompt = encode_e4srec_prompt(tokenizer)
    with gathered(base.get_input_embeddings().parameters()):
        return NextItemLLM(add_lora(base, lora), prompt, item_embeddings_ID, shared_prefix=llm.shared_prefix)


def e4srec_packer(llm: LLMConfig, source: ResolvedSource) -> Packer:
    """The packer of E4SRec's model, for a data module that is built before the model.

    Args:
        llm: the configured language model.
        source: its weights, of which only the tokenizer is loaded.
    """
    return packer_of(encode_e4srec_prompt(load_tokenizer(source)), shared_prefix=llm.shared_prefix)
