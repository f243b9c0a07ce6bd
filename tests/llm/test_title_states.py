"""The mean state of a title is that of the title read alone, however titles are packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tslrec.llm.loading import load
from tslrec.llm.title_states import TitleLLM, tokens_before
from tslrec.llm.title_tokens import encode_titles
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig
from tslrec.system.errors import UserError

BASE, TOKENIZER = load(resolve(LLMConfig(name="tiny", random={}), Path("unused")), dtype="float32")
PREFIX = tokens_before(TOKENIZER)
TITLES = ["Nail polish, red", "Soap", "A very long name of a cream for hands and feet", "x", "Soap"]
TOKENS = encode_titles(TOKENIZER, ["", *TITLES], title_tokens=20)


def alone(item: int, layer: str) -> Tensor:
    """The mean state of one title, by a plain pass of the model."""
    tokens = torch.tensor([[*PREFIX, *TOKENS[item].tolist()]])
    states = load_again()(input_ids=tokens, output_hidden_states=True).hidden_states
    chosen = {"last": states[-1:], "mean": states[1:], "1": states[1:2]}[layer]
    return torch.stack([state[0, len(PREFIX) :].mean(dim=0) for state in chosen]).mean(dim=0)


def load_again() -> torch.nn.Module:
    """The model as transformers runs it, with no attention of this project."""
    base, _ = load(resolve(LLMConfig(name="tiny", random={}), Path("unused")), dtype="float32")
    return base


@pytest.mark.parametrize("layer", ["last", "mean", "1"])
@pytest.mark.parametrize("shared_prefix", [True, False])
@torch.inference_mode()
def test_a_packed_title_is_read_as_alone(layer: str, shared_prefix: bool) -> None:
    model = TitleLLM(load(resolve(LLMConfig(name="tiny", random={}), Path("unused")), dtype="float32")[0], PREFIX,
                     shared_prefix=shared_prefix)  # fmt: skip
    titles = [TOKENS[item] for item in range(1, len(TITLES) + 1)]
    expected = torch.stack([alone(item, layer) for item in range(1, len(TITLES) + 1)])
    torch.testing.assert_close(model.mean_states(titles, layer), expected, atol=1e-5, rtol=1e-4)
    if shared_prefix:
        cached = model.mean_states(titles, layer, model.run_prefix())
        torch.testing.assert_close(cached, expected, atol=1e-5, rtol=1e-4)
        assert model.packer([np.array([*PREFIX, *title]) for title in titles]).tokens_RT.shape[0] < len(titles)


def test_a_layer_that_is_not_there_is_refused() -> None:
    model = TitleLLM(BASE, PREFIX)
    with pytest.raises(UserError, match=r"item_text\.layer=3: the language model has 2; name one of them"):
        model.mean_states([TOKENS[1]], "3")


def test_nothing_of_it_trains() -> None:
    model = TitleLLM(BASE, PREFIX)
    assert not model.trainable_parameters()
    assert not model.training


READER = TitleLLM(BASE, PREFIX)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(min_size=1).filter(lambda text: text.split()), min_size=1, max_size=6))
def test_any_titles_have_finite_states(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "ignore").decode() or "x" for text in texts]
    tokens = encode_titles(TOKENIZER, ["", *(" ".join(text.split()) or "x" for text in texts)], title_tokens=9)
    with torch.inference_mode():
        states = READER.mean_states([tokens[item] for item in range(1, len(texts) + 1)])
    assert states.shape == (len(texts), BASE.config.hidden_size)
    assert torch.isfinite(states).all()
