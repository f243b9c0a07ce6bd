"""What the keys of results are made of: no paths of code, no values that are the default."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tslrec.config import Config, non_defaults, section_defaults
from tslrec.models.backbones.gru4rec import GRU4Rec
from tslrec.models.backbones.sasrec import SASRec
from tslrec.settings.language_models import EncoderDecoderConfig, LLMConfig, LoraConfig
from tslrec.settings.preference_sft import SFTConfig
from tslrec.settings.rivals import P5Config
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages.key_settings import (
    e4srec_settings,
    p5_llm_settings,
    p5_settings,
    pod_settings,
    ranker_settings,
    recommender_settings,
    sft_settings,
    untuned_llm_settings,
)
from tslrec.system.targets import target_settings

SASREC = {"name": "sasrec", "hidden_size": 64, "_target_": "tslrec.models.backbones.sasrec.SASRec"}
PINNED = Path(__file__).with_name("defaults.json")


def test_code_that_moves_keeps_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = ModuleType("moved")
    moved.SASRec = SASRec  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "moved", moved)
    assert target_settings("model", {**SASREC, "_target_": "moved.SASRec"}) == target_settings("model", SASREC)


def test_another_class_under_the_same_name_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = ModuleType("moved")
    moved.Other = GRU4Rec  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "moved", moved)
    assert target_settings("model", {**SASREC, "_target_": "moved.Other"}) != target_settings("model", SASREC)


def test_a_value_that_is_the_default_is_as_if_it_were_absent() -> None:
    listed = {**SASREC, "num_layers": 2, "own_output": False, "title": "SASRec", "place": 3}
    assert target_settings("model", listed) == target_settings("model", SASREC)
    assert target_settings("model", {**listed, "num_layers": 3})["num_layers"] == 3


def test_a_section_is_what_is_not_its_default() -> None:
    assert non_defaults(TrainingConfig()) == {}
    assert non_defaults(TrainingConfig(max_len=7, num_negatives=5)) == {"max_len": 7, "num_negatives": 5}
    llm = LLMConfig(name="x", random={"hidden_size": 8}, lora=replace(LoraConfig(), rank=4))
    assert non_defaults(llm) == {"name": "x", "random": {"hidden_size": 8}, "lora": {"rank": 4}}


@pytest.mark.parametrize(
    "settings", [recommender_settings, sft_settings, e4srec_settings, ranker_settings, p5_settings, pod_settings]
)
def test_how_products_are_rounded_is_in_the_key_where_it_changes_results(
    settings: Callable[[Config], dict[str, Any]],
) -> None:
    def key(accelerator: str, precision: str) -> dict[str, Any]:
        trainer = TrainerConfig("x", accelerator=accelerator, matmul_precision=precision, deterministic=True)
        return settings(Config(model=SASREC, llm=LLMConfig(name="x"), trainer=trainer))

    on_a_cpu = key("cpu", "highest")
    assert key("cpu", "high") == key("gpu", "highest") == on_a_cpu
    assert key("gpu", "high") == {**on_a_cpu, "matmul_precision": "high"}


def test_what_is_read_of_an_item_is_in_the_key_where_titles_are_read() -> None:
    def keys(**changes: Any) -> list[dict[str, Any]]:
        config = Config(llm=LLMConfig(name="x"), sft=SFTConfig(**changes), trainer=TrainerConfig("x"))
        return [sft_settings(config), untuned_llm_settings(config)]

    plain = keys()
    assert plain == keys(title_tokens=2) == keys(item_input="embedding")
    assert "sft" not in plain[1]
    for before, after in zip(plain, keys(item_input="both"), strict=True):
        assert after == {**before, "sft": {"item_input": "both"}}
    assert keys(item_input="title", title_tokens=2)[1]["sft"] == {"item_input": "title", "title_tokens": 2}
    # What is trained is not what the untuned model reads.
    assert keys(item_input="both", batch_size=3)[1] == keys(item_input="both")[1]


def test_who_is_evaluated_is_in_the_key_of_e4srec_where_it_is_not_everyone() -> None:
    def settings(**changes: Any) -> dict[str, Any]:
        training = TrainingConfig(max_len=7, **changes)
        return e4srec_settings(Config(training=training, llm=LLMConfig(name="x"), trainer=TrainerConfig("x")))

    everyone = settings()
    assert everyone == {
        "llm": {"name": "x"},
        "precision": "32-true",
        "max_len": 7,
        "selection": TrainingConfig().selection,
        "e4srec": {},
    }
    for changes in ({"validation_users": 5}, {"test_users": 9}, {"validation_users": 5, "test_users": 9}):
        assert settings(**changes) == {**everyone, "training": changes}
    # What it does not read is not in its key.
    assert settings(batch_size=3) == everyone


def test_a_t5_is_in_the_key_of_p5_by_the_content_of_its_files(tmp_path: Path) -> None:
    def settings(**changes: Any) -> dict[str, Any]:
        return p5_settings(Config(t5=EncoderDecoderConfig(**changes), trainer=TrainerConfig("x")))

    assert settings(name="other") == settings() == {"t5": {}, "p5": {}, "training": {}, "precision": "32-true"}
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "spiece.model").write_bytes(b"pieces")
    found = settings(path=str(tmp_path))
    assert settings(path=str(tmp_path), d_model=9) == found
    assert settings(path=str(tmp_path), whole_words=9) != found
    (tmp_path / "spiece.model").write_bytes(b"others")
    assert settings(path=str(tmp_path)) != found


def test_no_default_changes_unnoticed() -> None:
    """Keys do not hold defaults: whoever changes one raises the versions of the stages that read it, and this file."""
    sections: dict[str, Any] = {
        name: section_defaults(name)
        for name in (
            *("training", "preferences", "sft", "knowledge", "llm"),
            *("e4srec", "llamarec", "t5", "item_index", "p5", "pod"),
            *("ensemble", "soft_targets"),
            *("ease", "item_text"),
        )
    }
    assert json.loads(PINNED.read_text(encoding="utf-8")) == sections


def test_the_settings_of_p5s_decoder_only_form_are_in_its_key_alone() -> None:
    def settings(read: Callable[[Config], dict[str, Any]], **changes: Any) -> dict[str, Any]:
        return read(Config(p5=P5Config(**changes), llm=LLMConfig(name="x"), trainer=TrainerConfig("x")))

    changes = {"tokens_at_once": 9, "lora": LoraConfig(3)}
    assert settings(p5_settings, **changes) == settings(p5_settings)
    assert settings(p5_llm_settings, **changes) != settings(p5_llm_settings)
