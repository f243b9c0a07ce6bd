"""What a knowledge store was made from: the facts by which stores that do not belong together are told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tslrec.errors import UserError
from tslrec.streaming import Table, slices

SHOWN = 12
"""Characters of a hash in a message."""


@dataclass(frozen=True)
class Origin:
    """Everything that a row of knowledge depends on; hashes are hex sha256.

    Attributes:
        base_model: the identity of the frozen language model's weights.
        adapter: of the trained parts: LoRA, item projection and group head.
        prompt: instruction and response, K not yet filled in.
        reading: layer and position of the hidden state that is the knowledge.
        num_clusters: K.
        centroids: of the centroids that the K categories stand for.
        item_map: of the raw ids, in the order of the items.
        item_embeddings: of the rows of the items, float32.
    """

    base_model: Mapping[str, Any]
    adapter: str
    prompt: tuple[str, str]
    reading: Mapping[str, str]
    num_clusters: int
    centroids: str
    item_map: str
    item_embeddings: str

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Origin:
        """Reads what `asdict` gave.

        Raises:
            TypeError: if it is something else.
            KeyError: likewise.
        """
        return cls(**{**value, "prompt": tuple(value["prompt"])})

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def refuse_other(self, wanted: Origin, where: Path, names: Iterable[str] | None = None) -> None:
        """Refuses to mix what was made from different things.

        Args:
            wanted: what this must be.
            where: this is from, for the message.
            names: of the fields that must agree; all by default.

        Raises:
            UserError: naming the first field that differs, with both values.
        """
        for name in [each.name for each in fields(self)] if names is None else names:
            mine, its = getattr(self, name), getattr(wanted, name)
            if mine != its:
                raise UserError(
                    f"{where}: made with {name} {shown(mine)}, but here it is {shown(its)}; name a store that was made "
                    "with the same, or compute it again"
                )


def shown(value: Any) -> str:
    """A value as a message has it, hashes shortened."""
    text = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, Mapping) else str(value)
    return text[:SHOWN] if len(text) == hashlib.sha256().digest_size * 2 else text


def digest_item_map(raw_ids: Iterable[str]) -> str:
    """Of the raw ids of items 1..I; padding has none."""
    state = hashlib.sha256()
    for raw_id in raw_ids:
        state.update(raw_id.encode() + b"\n")
    return state.hexdigest()


def digest_rows(table: Table, start: int = 0) -> str:
    """Of the rows from `start` on, as float32."""
    state = hashlib.sha256()
    for each in slices(len(table), start=start):
        state.update(table[each].float().contiguous().numpy().tobytes())
    return state.hexdigest()


def digest_files(folder: Path, names: Iterable[str]) -> str:
    """Of some files below a folder, each with its name."""
    state = hashlib.sha256()
    for name in names:
        with (folder / name).open("rb") as file:
            state.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return state.hexdigest()
