"""A language model that needs no files, for tests: a small Llama with random weights and a byte tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from transformers import LlamaModel, PreTrainedTokenizerFast

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""The sizes that `llm.random` may set, with their defaults. It may also set `seed`, which draws the weights (0)."""

MOST_LAYERS, MOST_SIZE = 1000, 2**20
"""The largest number of layers, and the largest of all other sizes."""

NUM_BYTES = 256
"""Size of the vocabulary: one token per byte."""


def complete_sizes(sizes: Mapping[str, int]) -> dict[str, int]:
    """Fills in the defaults of all sizes and of the seed that are not given.

    Args:
        sizes: from `llm.random`.

    Raises:
        UserError: if a name is unknown, or the numbers of heads do not divide the sizes that they split.
    """
    known = {**SIZES, "seed": 0}
    unknown = sorted(set(sizes) - set(known))
    if unknown:
        raise UserError(f"llm.random: unknown {', '.join(unknown)}; it may set {', '.join(known)}")
    complete = {**known, **sizes}
    for name, size in complete.items():
        most = MOST_LAYERS if name == "num_hidden_layers" else MOST_SIZE
        if name != "seed" and not 1 <= size <= most:
            raise UserError(f"llm.random.{name}={str(size)[:40]}: must be from 1 to {most}")
    heads, groups = complete["num_attention_heads"], complete["num_key_value_heads"]
    if complete["hidden_size"] % (2 * heads) or heads % groups:
        raise UserError(
            f"llm.random: {heads} attention heads must divide half of hidden_size {complete['hidden_size']}, and "
            f"{groups} key-value heads must divide them; change these numbers"
        )
    return complete


def random_llama(sizes: Mapping[str, int]) -> LlamaModel:
    """A Llama with random weights in float32; equal sizes and seeds give equal weights.

    torch's random state is left unchanged.

    Args:
        sizes: from `llm.random`; the rest takes its default.

    Raises:
        UserError: if the sizes do not fit.
    """
    import torch
    from transformers import LlamaConfig, LlamaModel

    numbers: dict[str, Any] = complete_sizes(sizes)
    seed = numbers.pop("seed")
    numbers |= {"vocab_size": NUM_BYTES, "bos_token_id": None, "eos_token_id": None}
    config = LlamaConfig(**numbers, attn_implementation="sdpa")  # type: ignore[call-arg]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaModel(config)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer with one token per UTF-8 byte, so that it can encode any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
