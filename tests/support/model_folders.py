"""Small language models of several architectures as folders in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

VOCABULARY = 300
"""Tokens that each model has embeddings of."""


def save_model(folder: Path, kind: str = "qwen2", *, head: bool = True, **changes: Any) -> Path:
    """Writes a model with random weights and a byte tokenizer.

    Args:
        folder: where.
        kind: `model_type` of transformers.
        head: save it with its head for tokens.
        changes: values of its configuration.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    sizes = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCABULARY,
        "pad_token_id": 0,
        **changes,
    }
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **sizes)
    (AutoModelForCausalLM if head else AutoModel).from_config(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path, *, known: Callable[[str], bool] = lambda character: True, first: int = 0) -> None:
    """Writes a tokenizer with a token per byte.

    Args:
        folder: where.
        known: which of the 256 characters of the byte alphabet have a token of their own.
        first: the number of the first one.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {character: first + i for i, character in enumerate(alphabet) if known(character)} | {"<unk>": first + 256}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)


def rewrite_weights(folder: Path, change: Callable[[Mapping[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Replaces a folder's weights by what a function makes of them."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})
