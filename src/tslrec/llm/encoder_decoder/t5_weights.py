"""Translates T5's weights, as transformers names them, into those of `EncoderDecoder`, and reads them from a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.source import weight_files
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_tensors

PATTERNS = [
    (r"^shared\.", "tokens."),
    (r"^(encoder\.)?whole_word_embeddings\.", "whole_words."),
    (r"^prompt_embeddings\.", "prompts."),
    (r"^(encoder|decoder)\.block\.0\.layer\.0\.SelfAttention\.relative_attention_bias\.", r"\1.relative_bias."),
    (r"^(encoder|decoder)\.final_layer_norm\.", r"\1.norm."),
    (r"^(encoder|decoder)\.block\.", r"\1.layers."),
    (r"\.layer\.0\.(SelfAttention\.)?", ".attention."),
    (r"^(decoder\..*)\.layer\.1\.(EncDecAttention\.)?", r"\1.cross_attention."),
    (r"\.layer\.[12]\.(DenseReluDense\.)?", ".feed_forward."),
    (r"\.layer_norm\.", ".norm."),
    (r"\.wi\.", ".expand."),
    (r"\.wo\.", ".contract."),
    (r"\.o\.", ".output."),
]
"""Parts of transformers' names and what stands in their place here, applied one after the other."""

JOINED = [
    (re.compile(r"(.*\.attention\.)q\.weight"), ("q", "k", "v"), "query_key_value"),
    (re.compile(r"(.*\.cross_attention\.)k\.weight"), ("k", "v"), "key_value"),
    (re.compile(r"(.*\.cross_attention\.)q\.weight"), ("q",), "query"),
]
"""Matrices that are one here: the first one's name, all of them, and the name of the whole."""

COPIES = frozenset(
    {
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "lm_head.weight",
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
    }
)
"""Weights that a file of T5's may hold and the model does not use: copies of the tied table, and an old leftover."""


def from_t5_names(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights (or their gradients) by the names of `EncoderDecoder`.

    Args:
        theirs: weights by transformers' names of T5; whole words and prompts by those of P5's and POD's public code.
    """
    named = {own_name(name): value for name, value in theirs.items() if name not in COPIES}
    for first, parts, whole in JOINED:
        for name in list(named):
            if match := first.fullmatch(name):
                joined = [named.pop(f"{match[1]}{part}.weight") for part in parts]
                named[f"{match[1]}{whole}.weight"] = torch.cat(joined)
    return named


def own_name(theirs: str) -> str:
    """A weight's name here, but for the matrices that are joined."""
    for pattern, replacement in PATTERNS:
        theirs = re.sub(pattern, replacement, theirs)
    return theirs


@torch.no_grad()
def load_t5(model: EncoderDecoder, folder: Path, *, num_known: int) -> None:
    """Puts the weights of a T5 into a model; whole words, prompts and tokens that it lacks stay as they were drawn.

    Args:
        model: of the shape `read_shape(folder)`.
        folder: the T5, in safetensors.
        num_known: token ids below this are the T5's own; the others are new.

    Raises:
        UserError: if weights are missing or have other shapes.
    """
    loaded = from_t5_names(read_weights(folder))
    own = model.state_dict()
    # A file of T5's may hold its table of tokens only as the encoder's copy of it.
    missing = sorted(set(own) - set(loaded) - {"whole_words.weight", "prompts.weight"})
    unknown = sorted(set(loaded) - set(own))
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has {unknown[0]}, which is not T5's"
        raise UserError(f"{folder}: its weights are not those of its config.json: {what}; copy the folder anew")
    table_VD = loaded.pop("tokens.weight")
    num_known = min(num_known, len(table_VD), model.tokens.num_embeddings)
    wrong = [name for name, value in loaded.items() if value.shape != own[name].shape]
    if wrong or table_VD.shape[1] != model.shape.d_model:
        raise UserError(
            f"{folder}: {(wrong or ['tokens.weight'])[0]} has another shape than config.json says; copy the folder anew"
        )
    for name, value in loaded.items():
        own[name].copy_(value)
    own["tokens.weight"][:num_known] = table_VD[:num_known].to(own["tokens.weight"])


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a model folder, from safetensors, in one file or in shards.

    Raises:
        UserError: if there are none.
    """
    weights: dict[str, Tensor] = {}
    for file in weight_files(folder):
        weights.update(load_tensors(file))
    if "shared.weight" not in weights and "encoder.embed_tokens.weight" in weights:
        weights["shared.weight"] = weights["encoder.embed_tokens.weight"]
    return weights


@torch.no_grad()
def redraw_tokens(model: EncoderDecoder, tokens: Tensor) -> None:
    """Draws the vectors of some tokens anew from N(0, 1), as P5 does with those of numbers.

    Args:
        model: the model.
        tokens: int64, their ids.
    """
    model.tokens.weight[tokens] = torch.randn(len(tokens), model.shape.d_model, device=model.tokens.weight.device)
