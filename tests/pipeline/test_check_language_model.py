"""A language model that does not fit the method is refused in one line before anything is read or trained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir

from support.checkout import CHECKOUT
from support.model_folders import rewrite_weights, save_model, save_tokenizer
from tslrec.config import Config
from tslrec.llm.loading import load
from tslrec.llm.weights_source import resolve
from tslrec.pipeline.check import check
from tslrec.pipeline.composition import register_schema, to_config
from tslrec.system.errors import UserError


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    register_schema()
    with initialize_config_dir(str(CHECKOUT / "configs"), version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("whole") / "qwen")


def composed(folder: Path, *overrides: str) -> Config:
    chosen = ["method=tslrec", "llm=tiny", "llm.random=null", "llm.name=mine", f"llm.path={folder}", *overrides]
    return to_config(compose("train", overrides=chosen))


def checked(folder: Path, *overrides: str) -> None:
    config = composed(folder, *overrides)
    check(config, resolve(config.llm, folder / "cache"))


def refusal(folder: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as raised:
        checked(folder, *overrides)
    line = str(raised.value)
    assert "\n" not in line
    assert len(line) <= 300, line
    return line


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (to / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("qwen2", ["q_proj", "v_proj"]),
        ("mistral", ["o_proj"]),
        ("gpt2", ["c_attn"]),
        ("gpt_neox", ["query_key_value"]),
        ("phi3", ["qkv_proj"]),
    ],
)
@pytest.mark.parametrize("head", [True, False])
def test_a_model_that_fits_passes(kind: str, targets: list[str], head: bool, tmp_path: Path) -> None:
    save_model(tmp_path / kind, kind, head=head)
    checked(tmp_path / kind, f"llm.lora.targets=[{','.join(targets)}]")


def test_the_report_of_transformers_does_not_show(qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = composed(qwen)
    source = resolve(config.llm, qwen / "cache")
    check(config, source)
    load(source, dtype="float32")
    captured = capfd.readouterr()
    assert "REPORT" not in captured.out + captured.err


Change = Callable[[Any], dict[str, torch.Tensor]]

WRONG_WEIGHTS: list[tuple[Change, str]] = [
    (lambda w: {k: v for k, v in w.items() if "mlp" not in k}, r"lack layers\.0\.mlp\.down_proj\.weight.*9 names"),
    (lambda w: {k: v for k, v in w.items() if "embed_tokens" not in k and "lm_head" not in k}, r"lack embed_tokens"),
    (lambda w: {f"_orig_mod.{k}": v for k, v in w.items()}, r"all names begin with '_orig_mod\.'"),
    (lambda w: {f"a.b.{k}": v for k, v in w.items()}, r"all names begin with 'a\.'"),
    (
        lambda w: {k: v[:-1].clone() if k.endswith("layers.2.mlp.up_proj.weight") else v for k, v in w.items()},
        r"have other shapes of layers\.2\.mlp\.up_proj\.weight \(1 names",
    ),
    (
        lambda w: {**w, **{k.replace("layers.0", "layers.7"): v.clone() for k, v in w.items() if "layers.0." in k}},
        r"have, and the model has not, .*layers\.7\.",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG_WEIGHTS)
def test_weights_of_another_model_are_refused(qwen: Path, change: Change, message: str, tmp_path: Path) -> None:
    folder = copied(qwen, tmp_path / "changed")
    rewrite_weights(folder, change)
    line = refusal(folder)
    assert re.search(message, line), line
    # Whoever loads without the check (a recommender that is extended, say) is refused, too.
    with pytest.raises((UserError, RuntimeError)):
        load(resolve(composed(folder).llm, tmp_path / "cache"), dtype="float32")


def test_an_index_that_names_other_weights_than_its_shards_have_is_refused(qwen: Path, tmp_path: Path) -> None:
    folder = copied(qwen, tmp_path / "sharded")
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "a.safetensors", "gone": "a.safetensors"}}))
    assert "lack gone" in refusal(folder)
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "b.safetensors"}}))
    assert "has no b.safetensors" in refusal(folder)
    for text in ("{", "[]", "{}", '{"weight_map": 3}'):
        index.write_text(text)
        assert "names no shards" in refusal(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "is no JSON"),
        ("[]", "names no model_type"),
        ("{}", "names no model_type"),
        ('{"model_type": "qwen22"}', "nearest: qwen2"),
        ('{"model_type": "qwen2", "hidden_size": "wide"}', "config.json"),
        (
            '{"model_type": "qwen2", "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 3, '
            '"num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 9}',
            "sizes in config.json do not fit together",
        ),
        ('{"model_type": "qwen2", "hidden_size": 0, "num_attention_heads": 0}', "config.json"),
    ],
)
def test_a_broken_configuration_is_refused(qwen: Path, content: str, message: str, tmp_path: Path) -> None:
    folder = copied(qwen, tmp_path / "broken")
    (folder / "config.json").write_text(content)
    assert message in refusal(folder)


@pytest.mark.parametrize("kind", ["bert", "t5", "gemma2", "bloom", "roberta"])
def test_an_architecture_that_cannot_be_run_is_refused(kind: str, tmp_path: Path) -> None:
    changes = {"d_model": 24, "d_kv": 6} if kind == "t5" else {}
    save_model(tmp_path / kind, kind, head=False, **changes)
    line = refusal(tmp_path / kind, "llm.lora.targets=[query]")
    assert kind in line
    assert "choose" in line


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("[qproj,v_proj]", "named qproj; it has down_proj, gate_proj.*nearest: q_proj"),
        ("[q_proj,c_attn]", "named c_attn"),
        ("[input_layernorm]", "named input_layernorm"),
        ("[embed_tokens]", "named embed_tokens"),
        ("[proj]", "named proj"),
    ],
)
def test_lora_targets_are_layers_of_the_model(qwen: Path, targets: str, message: str) -> None:
    assert re.search(f"llm.lora.targets: .*{message}", refusal(qwen, f"llm.lora.targets={targets}"))
    key = f"e4srec.lora.targets={targets}"
    assert "e4srec.lora.targets" in refusal(qwen, "method=e4srec", key)
    # The preference SFT does not read E4SRec's.
    checked(qwen, key)


def test_a_prompt_longer_than_the_table_of_positions_is_refused(tmp_path: Path) -> None:
    for kind, name in (("gpt2", "c_attn"), ("opt", "q_proj")):
        folder = save_model(tmp_path / kind, kind, max_position_embeddings=140, ffn_dim=40, word_embed_proj_dim=24)
        wanted = [f"llm.lora.targets=[{name}]", "training.max_len=60"]
        assert "set training.max_len to" in refusal(folder, *wanted), kind
        checked(folder, wanted[0], "training.max_len=8")


def test_titles_that_do_not_fit_the_positions_are_refused(qwen: Path) -> None:
    titled = ["sft.item_input=both", "sft.title_tokens=8"]
    words = refusal(qwen, *titled, "training.max_len=50000")
    assert "training.max_len=50000 items of up to 9 tokens are more than its" in words
    room = int(words.partition("set training.max_len to ")[2].split()[0])
    checked(qwen, *titled, f"training.max_len={room}")
    refusal(qwen, *titled, f"training.max_len={room + 1}")
    # Embeddings are one token each, and a model that computes its positions is only warned of.
    checked(qwen, f"training.max_len={room + 1}")


def test_a_tokenizer_that_does_not_fit_is_refused(qwen: Path, tmp_path: Path) -> None:
    folder = copied(qwen, tmp_path / "other")
    save_tokenizer(folder, first=200)
    assert "the model has 300" in refusal(folder)
    save_tokenizer(folder, known=lambda character: character in "0123456789")
    assert "makes no tokens" in refusal(folder)
    (folder / "tokenizer.json").write_text("{")
    assert "tokenizer cannot be read" in refusal(folder)
    (folder / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in refusal(folder)


def test_a_layer_that_the_model_has_not_is_refused(qwen: Path) -> None:
    assert "llm=mine has 3 layers" in refusal(qwen, "knowledge.layer=4")
    checked(qwen, "knowledge.layer=3")


def test_weights_larger_than_the_memory_are_refused(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tslrec.pipeline.check_language_model.memory_bytes", lambda: 10_000)
    assert "choose a smaller model" in refusal(qwen)


def test_a_method_without_a_language_model_does_not_read_it(qwen: Path, tmp_path: Path) -> None:
    config = composed(qwen, "method=base")
    folder = copied(qwen, tmp_path / "broken")
    source = resolve(composed(folder).llm, tmp_path)
    (folder / "config.json").write_text("{")
    check(config, source)


def test_llamarec_wants_letters_positions_and_the_models_own_head(tmp_path: Path) -> None:
    method = ("method=llamarec", "model=sasrec")
    headless = save_model(tmp_path / "headless", "llama", head=False, tie_word_embeddings=False)
    assert "has no lm_head.weight" in refusal(headless, *method)
    learned = save_model(tmp_path / "learned", "gpt2", n_embd=24, n_layer=2, n_head=4, n_positions=128)
    targets = "llamarec.lora.targets=[c_attn]"
    message = refusal(learned, *method, targets, "llamarec.max_tokens=128")
    assert "llamarec.max_tokens=128 and the answer are more than its 128 positions; set it to 127" in message
    without_letters = save_model(tmp_path / "unknown", "llama", tie_word_embeddings=True)
    save_tokenizer(without_letters, known=lambda character: character != "C")
    assert "no token of its own for the letter C" in refusal(without_letters, *method)
