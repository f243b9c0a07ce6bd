"""A language model without files: a small Llama with random weights and a tokenizer of single bytes, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tslrec.errors import UserError

if TYPE_CHECKING:
    from transformers import LlamaModel, PreTrainedTokenizerFast

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""What `llm.random` may set, and what it is otherwise; `seed` (0) draws other weights."""

NUM_BYTES = 256


def complete_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """All sizes and the seed, those not given by default.

    Raises:
        UserError: for an unknown name, or heads that do not divide what they must.
    """
    known = {**SIZES, "seed": 0}
    unknown = sorted(set(sizes) - set(known))
    if unknown:
        raise UserError(f"llm.random: unknown {', '.join(unknown)}; it may set {', '.join(known)}")
    complete = {**known, **sizes}
    heads, groups = complete["num_attention_heads"], complete["num_key_value_heads"]
    if complete["hidden_size"] % (2 * heads) or heads % groups:
        raise UserError(
            f"llm.random: {heads} attention heads must divide half of hidden_size {complete['hidden_size']}, and "
            f"{groups} key-value heads must divide them; change these numbers"
        )
    return complete


def random_llama(sizes: Mapping[str, int], attention: str) -> LlamaModel:
    """A Llama with random weights, the same ones for the same sizes; torch's random state is left as it was."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    numbers: dict[str, Any] = complete_sizes(sizes)
    seed = numbers.pop("seed")
    numbers |= {"vocab_size": NUM_BYTES, "bos_token_id": None, "eos_token_id": None}
    config = LlamaConfig(**numbers, attn_implementation=attention)  # type: ignore[call-arg]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaModel(config)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, so that any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
