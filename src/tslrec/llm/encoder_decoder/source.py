"""Where an encoder-decoder's sizes and weights come from: the section `t5` or a T5's files. Imports nothing heavy."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from tslrec.config import non_defaults
from tslrec.llm.encoder_decoder.shape import EncoderDecoderShape
from tslrec.llm.model_files import fingerprint, weight_map
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.system.errors import UserError

SIZES = tuple(each.name for each in fields(EncoderDecoderShape))
"""Names of the sizes, in T5's config.json and, but for the last one, in the section `t5`."""

TOKENIZER_FILES = ("tokenizer.json", "spiece.model", "tokenizer_config.json", "added_tokens.json")
"""Files that say how a T5's tokenizer splits texts, as far as a folder has them."""


def shape_of(t5: EncoderDecoderConfig) -> EncoderDecoderShape:
    """The sizes that are configured, or those of the T5 in `t5.path`.

    Raises:
        UserError: if `t5.path` holds no T5, or distances and buckets do not fit.
    """
    if t5.path is not None:
        return read_shape(Path(t5.path).expanduser())
    shape = EncoderDecoderShape(**{name: getattr(t5, name) for name in SIZES if hasattr(t5, name)})
    if shape.relative_attention_max_distance <= shape.relative_attention_num_buckets // 2:
        raise UserError(
            f"t5.relative_attention_max_distance={shape.relative_attention_max_distance}: must be more than half of "
            f"t5.relative_attention_num_buckets ({shape.relative_attention_num_buckets}); T5 has 128 and 32"
        )
    return shape


def describe_t5(t5: EncoderDecoderConfig) -> str:
    """What a model's weights are, for a person: its sizes with weights at random, or the folder of a T5."""
    if t5.path is not None:
        return f"the T5 in {Path(t5.path).expanduser().name}"
    layers = f"{t5.num_layers} + {t5.num_decoder_layers} layers of width {t5.d_model}"
    return f"T5-{t5.name}'s sizes ({layers}), weights at random"


def t5_settings(t5: EncoderDecoderConfig) -> dict[str, Any]:
    """What determines a model: the sizes, or the content of the T5's files, wherever they lie.

    Raises:
        UserError: if `t5.path` holds no T5.
    """
    unread = {"name", "path"}
    if t5.path is None:
        return {name: value for name, value in non_defaults(t5).items() if name not in unread}
    folder = Path(t5.path).expanduser()
    read_shape(folder)
    files = {file.name: fingerprint(file) for file in [folder / "config.json", *weight_files(folder)]}
    words = {name: value for name, value in non_defaults(t5).items() if name == "whole_words"}
    return {"dropout": t5.dropout, "files": files, **words}


def tokenizer_settings(t5: EncoderDecoderConfig) -> dict[str, Any]:
    """What determines the tokens of texts: the content of the tokenizer's files in `t5.path`; nothing without one."""
    if t5.path is None:
        return {}
    files = [Path(t5.path).expanduser() / name for name in TOKENIZER_FILES]
    return {"tokenizer": {file.name: fingerprint(file) for file in files if file.is_file()}}


def read_shape(folder: Path) -> EncoderDecoderShape:
    """The sizes of the T5 in a folder of the Hugging Face layout.

    Raises:
        UserError: if it holds no T5, or one of another kind than the first: gated layers or an output layer of its own.
    """
    config = read_config(folder)
    kind = config.get("feed_forward_proj", "relu")
    if config.get("model_type") != "t5" or kind != "relu" or not config.get("tie_word_embeddings", True):
        raise UserError(
            f"{folder}: a {str(config.get('model_type'))[:20]} with {str(kind)[:20]} layers; give a T5 of the first "
            "release (t5-small, t5-base, …): relu and a tied output layer"
        )
    given = {name: config[name] for name in SIZES if config.get(name) is not None}
    given.setdefault("num_decoder_layers", given.get("num_layers", EncoderDecoderShape.num_layers))
    return EncoderDecoderShape(**given)


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.json.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        if not isinstance(config, dict):
            raise TypeError
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: no readable config.json ({type(error).__name__}); give a folder in the Hugging Face layout"
        ) from error
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files of a model folder's weights: one in safetensors, or the shards that an index names.

    Raises:
        UserError: if one is missing or of another type.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    files = sorted({folder / Path(name).name for name in weight_map(index).values()}) if index.is_file() else [single]
    for file in files:
        if file.suffix != ".safetensors" or not file.is_file():
            raise UserError(f"{folder}: has no {file.name[:80]}; give a T5 with its weights in safetensors")
    return files
