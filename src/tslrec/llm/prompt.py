"""The paper's prompt (Section 4.1), word for word: an instruction, the items, and "Response:"."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTION = (
    "Given the user’s purchase history, predict the user’s distribution among {num_clusters} purchase preferences."
)
RESPONSE = "Response:"


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


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)
