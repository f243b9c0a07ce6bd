"""A model folder in the Hugging Face layout: whether it is complete, and a fingerprint that identifies its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

from tslrec.system.errors import UserError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""A tokenizer needs at least one of these."""

SAMPLES = 16
"""Samples that a fingerprint takes of a file."""

SAMPLE_BYTES = 65536
"""Size of one sample, in bytes."""


def missing_part(folder: Path) -> str | None:
    """The name of a file that a model folder lacks, or None if it is complete.

    Only safetensors count as weights, in one file or in the shards that an index names.
    """
    if not (folder / "config.json").is_file():
        return "config.json"
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        return " or ".join(TOKENIZER_FILES)
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return None if (folder / "model.safetensors").is_file() else "model.safetensors"
    return next((shard for shard in sorted(set(weight_map(index).values())) if not shard_is_there(folder, shard)), None)


def weight_map(index: Path) -> dict[str, str]:
    """The shard of each weight, as an index names it.

    Raises:
        UserError: if the index names none.
    """
    try:
        named = json.loads(index.read_text())["weight_map"]
        return {str(name): str(shard) for name, shard in named.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{index}: names no shards ({type(error).__name__}); copy it anew from the model") from error


def missing_from_shards(folder: Path, names: Mapping[str, Collection[str]]) -> list[str]:
    """The weights that the index of a model folder names and its shards lack; none where there is no index.

    Args:
        folder: the model folder.
        names: the names in each file of weights.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    return sorted(name for name, shard in weight_map(index).items() if name not in names.get(shard, ()))


def shard_is_there(folder: Path, shard: str) -> bool:
    """Whether a shard that an index names is a safetensors file in the index's own folder.

    Loading would read a file of any other type as a pickle, which can execute code.
    """
    return shard == Path(shard).name and shard.endswith(".safetensors") and (folder / shard).is_file()


def fingerprint(path: Path) -> str:
    """Hex sha256 of a file's size and of 16 samples of 64 KiB spread evenly over it.

    It reads 1 MiB at most, so it is cheap even for files of tens of gigabytes.
    """
    size = path.stat().st_size
    state = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for i in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * i // (SAMPLES - 1))
            state.update(file.read(SAMPLE_BYTES))
    return state.hexdigest()
