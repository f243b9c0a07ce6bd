"""A model's head for tokens is the one with which transformers gives logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.model_folders import VOCABULARY, save_model
from tslrec.llm.loading import load
from tslrec.llm.prompted import add_lora
from tslrec.llm.text import TextLLM
from tslrec.llm.token_head import load_token_head
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.system.errors import UserError


def with_head(folder: Path, *, pretrained: bool = True) -> TextLLM:
    """The model in a folder and its head, around which LoRA still changes nothing."""
    source = resolve(LLMConfig(name="here", path=str(folder), pretrained=pretrained), folder)
    base, _ = load(source, dtype="float32")
    head_VH = load_token_head(source, base, torch.float32)
    return TextLLM(add_lora(base, LoraConfig(2, 4, 0.0, ["q_proj"])), [], head_VH, shared_prefix=False).eval()


@pytest.mark.parametrize(("kind", "tied"), [("llama", False), ("llama", True), ("qwen2", False)])
def test_logits_are_those_of_transformers(tmp_path: Path, kind: str, tied: bool) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_model(tmp_path / "model", kind, tie_word_embeddings=tied)
    model = with_head(folder)
    assert (model.token_head is None) == tied
    tokens = torch.arange(5, 25)[None]
    with torch.no_grad():
        state_1TH = model.llm(input_ids=tokens).last_hidden_state
        found = model.token_scores(state_1TH[0], torch.arange(VOCABULARY))
        wanted = AutoModelForCausalLM.from_pretrained(folder)(input_ids=tokens).logits[0]
    torch.testing.assert_close(found, wanted)
    assert not any("token_head" in name for name, each in model.named_parameters() if each.requires_grad)


def test_without_pretraining_the_head_is_drawn_too(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama", tie_word_embeddings=False)
    drawn, again, trained = (with_head(folder, pretrained=each).head_VH() for each in (False, False, True))
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, trained)
    assert drawn.shape == trained.shape == (VOCABULARY, 24)


def test_weights_without_the_head_that_the_model_has_are_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama", head=False, tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"has no lm_head\.weight") as refused:
        with_head(folder)
    assert len(str(refused.value)) <= 300
