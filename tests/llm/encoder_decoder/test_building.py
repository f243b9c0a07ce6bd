"""The section `t5` gives sizes or files, and only their content determines results."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tslrec.llm.encoder_decoder.building import build
from tslrec.llm.encoder_decoder.shape import EncoderDecoderShape
from tslrec.llm.encoder_decoder.source import shape_of, t5_settings
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.system.errors import UserError

TINY: dict[str, Any] = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A T5 with ten tokens."""
    from transformers import T5Config, T5ForConditionalGeneration

    T5ForConditionalGeneration(T5Config(**{"vocab_size": 10, **TINY})).save_pretrained(tmp_path / "t5")
    return tmp_path / "t5"


def test_the_defaults_are_t5_small() -> None:
    assert shape_of(EncoderDecoderConfig()) == EncoderDecoderShape()
    assert t5_settings(EncoderDecoderConfig(name="another name")) == {}


def test_sizes_are_settings_and_make_the_model() -> None:
    t5 = EncoderDecoderConfig(whole_words=7, dropout=0.0, **TINY)
    assert t5_settings(t5) == {**TINY, "whole_words": 7, "dropout": 0.0}
    model = build(t5, 12, num_prompts=3)
    assert model.tokens.weight.shape == (12, 8)
    assert model.whole_words.weight.shape == (7, 8)
    assert model.prompts is not None
    assert model.prompts.weight.shape == (3, 8)


def test_files_are_settings_by_their_content(folder: Path, tmp_path: Path) -> None:
    settings = t5_settings(EncoderDecoderConfig(path=str(folder)))
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert t5_settings(EncoderDecoderConfig(path=str(moved), d_model=9)) == settings
    (moved / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1] + b"\x01")
    assert t5_settings(EncoderDecoderConfig(path=str(moved))) != settings


def test_a_model_has_the_weights_of_the_files(folder: Path) -> None:
    from safetensors.torch import load_file

    model = build(EncoderDecoderConfig(path=str(folder)), 15, num_known=6)
    assert model.shape.d_model == TINY["d_model"]
    assert torch.equal(model.tokens.weight[:6], load_file(folder / "model.safetensors")["shared.weight"][:6])
    assert model.tokens.weight.shape == (15, 8)


def test_buckets_and_distances_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=re.escape("must be more than half of t5.relative_attention_num_buckets (32)")):
        shape_of(EncoderDecoderConfig(relative_attention_max_distance=16))
