"""The paper's prompt for reconstructing a user's preferences (Section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tslrec.llm.prompt import Prompt, encode_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTION = (
    "Given the user’s purchase history, predict the user’s distribution among {num_clusters} purchase preferences."
)
"""d_inst, word for word as in the paper; `num_clusters` is K."""

RESPONSE = "Response:"
"""d_res, word for word as in the paper."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, num_clusters: int) -> Prompt:
    """Tokenises the instruction and the response separately, because item embeddings stand between them.

    The instruction begins with the BOS token if the tokenizer begins its texts with one (Llama 2 does, SmolLM2 does
    not). No chat template is applied, even for chat models: the paper uses none.

    Args:
        tokenizer: the language model's.
        num_clusters: K.
    """
    instruction = encode_text(tokenizer, INSTRUCTION.format(num_clusters=num_clusters))
    bos = tokenizer.bos_token_id
    if bos is not None and list(tokenizer(RESPONSE).input_ids)[:1] == [bos]:
        instruction = [int(bos), *instruction]
    return Prompt(instruction, encode_text(tokenizer, RESPONSE))
