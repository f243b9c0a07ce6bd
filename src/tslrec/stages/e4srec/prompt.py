"""E4SRec's prompt for the next item (Li et al. 2023), in the template that Alpaca (Taori et al. 2023) was tuned on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tslrec.llm.prompt import Prompt, encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

E4SREC_INSTRUCTION = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nGiven the user's purchase history, predict next possible item to be purchased.\n\n### Input:\n"
)
"""The text before the items."""

E4SREC_RESPONSE = "\n\n### Response:\n"
"""The text after the items."""


def encode_e4srec_prompt(tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """Tokenises both parts separately, without special tokens."""
    return Prompt(encode_text(tokenizer, E4SREC_INSTRUCTION), encode_text(tokenizer, E4SREC_RESPONSE))
