"""The prompts: what stands before the items, and what after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTION = (
    "Given the user’s purchase history, predict the user’s distribution among {num_clusters} purchase preferences."
)
RESPONSE = "Response:"
"""The paper's (Section 4.1), word for word."""

E4SREC_INSTRUCTION = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nGiven the user's purchase history, predict next possible item to be purchased.\n\n### Input:\n"
)
E4SREC_RESPONSE = "\n\n### Response:\n"
"""E4SRec's (Li et al. 2023): its task in the template that Alpaca (Taori et al. 2023) was tuned on."""


class Prompt(NamedTuple):
    """Token ids of what surrounds the items.

    Attributes:
        instruction: d_inst, begun by the BOS token where the model's own tokenizer begins its texts with one
            (Llama 2 does, SmolLM2 does not).
        response: d_res, without any special token.
    """

    instruction: list[int]
    response: list[int]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, num_clusters: int) -> Prompt:
    """Tokenises both parts by themselves, since item embeddings stand between them.

    No chat template is applied, also for models tuned to chat: the paper uses none.
    """
    instruction = _encode(tokenizer, INSTRUCTION.format(num_clusters=num_clusters))
    bos = tokenizer.bos_token_id
    if bos is not None and list(tokenizer(RESPONSE).input_ids)[:1] == [bos]:
        instruction = [int(bos), *instruction]
    return Prompt(instruction, _encode(tokenizer, RESPONSE))


def encode_e4srec_prompt(tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """E4SRec's, without special tokens."""
    return Prompt(_encode(tokenizer, E4SREC_INSTRUCTION), _encode(tokenizer, E4SREC_RESPONSE))


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)
