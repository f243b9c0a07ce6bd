"""The model equals transformers' T5 with the same weights, draws its own as that one does, and reads its files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tslrec.llm.encoder_decoder.model import PROMPT_RANGE, EncoderDecoder
from tslrec.llm.encoder_decoder.packing import Packer
from tslrec.llm.encoder_decoder.shape import END, EncoderDecoderShape
from tslrec.llm.encoder_decoder.source import read_shape
from tslrec.llm.encoder_decoder.t5_weights import from_t5_names, load_t5, redraw_tokens
from tslrec.system.errors import UserError

VOCABULARY = 50
SIZES: dict[str, Any] = {
    "d_model": 48, "d_kv": 8, "d_ff": 96, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 6,
    "relative_attention_num_buckets": 16, "relative_attention_max_distance": 40,
}  # fmt: skip


def their_model(**changed: Any) -> Any:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(**{"vocab_size": VOCABULARY, "decoder_start_token_id": 0, **SIZES, **changed})
    return T5ForConditionalGeneration(config).eval()


def saved(folder: Path, **changed: Any) -> Path:
    their_model(**changed).save_pretrained(folder)
    return folder


def test_equals_transformers_beyond_the_last_bucket() -> None:
    theirs, model = their_model(), EncoderDecoder(EncoderDecoderShape(**SIZES), VOCABULARY).eval()
    weights = from_t5_names(theirs.state_dict())
    model.load_state_dict({**weights, "whole_words.weight": torch.zeros_like(model.whole_words.weight)})
    rng = np.random.default_rng(0)
    tokens, target = np.append(rng.integers(2, VOCABULARY, 120), END), np.append(rng.integers(2, VOCABULARY, 60), END)
    batch = Packer()([tokens], [np.zeros_like(tokens)], [target])
    with torch.no_grad():
        expected = theirs(input_ids=torch.from_numpy(tokens)[None], labels=torch.from_numpy(target)[None])
        torch.testing.assert_close(model.label_logits(batch), expected.logits[0], atol=2e-5, rtol=0)
        torch.testing.assert_close(model(batch), expected.loss, atol=1e-5, rtol=0)


def test_weights_are_drawn_as_transformers_draws_them() -> None:
    sizes = {**SIZES, "d_model": 256, "d_kv": 32, "d_ff": 512, "num_heads": 8}
    torch.manual_seed(0)
    theirs = from_t5_names(their_model(**sizes).state_dict())
    model = EncoderDecoder(EncoderDecoderShape(**sizes), VOCABULARY, num_prompts=40)
    ours = model.state_dict()
    assert set(ours) - set(theirs) == {"whole_words.weight", "prompts.weight"}
    for name, expected in theirs.items():
        for part, expected_part in zip(ours[name].chunk(3), expected.chunk(3), strict=True):
            # The tables of relative positions are small, so their deviation is known least.
            assert part.std() == pytest.approx(float(expected_part.std()), rel=0.25, abs=1e-6), name
    assert ours["whole_words.weight"].std() == pytest.approx(1, rel=0.02)
    assert 0.9 * PROMPT_RANGE < ours["prompts.weight"].abs().max() <= PROMPT_RANGE


def test_files_are_read_and_new_tokens_stay_as_drawn(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    shape = read_shape(folder)
    assert shape == EncoderDecoderShape(**SIZES)
    model = EncoderDecoder(shape, VOCABULARY + 5)
    drawn = {name: value.clone() for name, value in model.state_dict().items()}
    load_t5(model, folder, num_known=VOCABULARY - 3)
    from safetensors.torch import load_file

    theirs = from_t5_names(load_file(folder / "model.safetensors"))
    table = theirs.pop("tokens.weight")
    for name, value in theirs.items():
        assert torch.equal(model.state_dict()[name], value), name
    known = VOCABULARY - 3
    assert torch.equal(model.tokens.weight[:known], table[:known])
    assert torch.equal(model.tokens.weight[known:], drawn["tokens.weight"][known:])
    assert torch.equal(model.whole_words.weight, drawn["whole_words.weight"])


def test_some_tokens_are_drawn_anew() -> None:
    model = EncoderDecoder(EncoderDecoderShape(**SIZES), VOCABULARY)
    before = model.tokens.weight.clone()
    redraw_tokens(model, torch.tensor([7, 3]))
    changed = (model.tokens.weight != before).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [3, 7]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"feed_forward_proj": "gated-gelu"}, "gated-gelu layers"),
        ({"tie_word_embeddings": False}, "a tied output layer"),
        ({"model_type": "llama"}, "a llama with"),
    ],
)
def test_another_kind_of_model_is_refused(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", **SIZES, **changed}))
    with pytest.raises(UserError, match=re.escape(says)) as refused:
        read_shape(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape("no readable config.json")):
        read_shape(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match=re.escape("no readable config.json")):
        read_shape(tmp_path)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=re.escape("has no model.safetensors")):
        load_t5(EncoderDecoder(EncoderDecoderShape(**SIZES), VOCABULARY), tmp_path, num_known=VOCABULARY)


@pytest.mark.parametrize(
    ("changed", "says"), [({"num_layers": 2}, "lacks encoder.layers.2"), ({"d_ff": 32}, "another shape")]
)
def test_weights_that_are_not_those_of_the_config_are_refused(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    folder, model = saved(tmp_path, **changed), EncoderDecoder(EncoderDecoderShape(**SIZES), VOCABULARY)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=re.escape(says)):
        load_t5(model, folder, num_known=VOCABULARY)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
