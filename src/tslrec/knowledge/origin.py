"""What a knowledge store was made from: the facts that tell whether two stores belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tslrec.system.errors import UserError

HASH_CHARACTERS = 12
"""Characters of a hash that a message shows."""


@dataclass(frozen=True)
class Origin:
    """Everything that a row of knowledge depends on. Hashes are hex sha256.

    Attributes:
        base_model: identity of the frozen language model's weights.
        adapter: hash of the trained parts: LoRA, item projection and group head.
        prompt: instruction and response; the instruction has a placeholder for K.
        reading: `layer` and `position` of the hidden state that is the knowledge.
        num_clusters: K.
        centroids: hash of the centroids of the K categories.
        item_map: hash of the raw item ids, in the order of the items.
        item_embeddings: hash of the items' embeddings, float32.
        item_input: what the language model reads of an item (`sft.item_input`).
        title_tokens: most tokens of a title; None: titles are not read.
        titles: hash of the tokens of the items' titles; None: titles are not read.
    """

    base_model: Mapping[str, Any]
    adapter: str
    prompt: tuple[str, str]
    reading: Mapping[str, str]
    num_clusters: int
    centroids: str
    item_map: str
    item_embeddings: str
    item_input: str = "embedding"
    title_tokens: int | None = None
    titles: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Origin:
        """Reads what `as_json` wrote.

        Raises:
            TypeError: if a field is missing, unknown or of another type.
            KeyError: if there is no prompt.
        """
        return cls(**{**value, "prompt": tuple(value["prompt"])})

    def as_json(self) -> dict[str, Any]:
        """The fields, for a JSON file; those of titles only where titles are read, as stores before them have none."""
        defaults = {each.name: each.default for each in fields(self)}
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    def require_match(self, expected: Origin, where: Path, names: Iterable[str] | None = None) -> None:
        """Refuses this origin if it differs from the expected one.

        Args:
            expected: what this origin must equal.
            where: the file or folder that this origin was read from, for the message.
            names: the fields that must agree; None compares all.

        Raises:
            UserError: naming the first field that differs, with both values.
        """
        for name in [each.name for each in fields(self)] if names is None else names:
            mine, wanted = getattr(self, name), getattr(expected, name)
            if mine != wanted:
                raise UserError(
                    f"{where}: made with {name} {shortened(mine)}, but here it is {shortened(wanted)}; name a store "
                    "that was made with the same, or compute it again"
                )


def shortened(value: Any) -> str:
    """A value as a message shows it: a hash by its first characters."""
    text = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, Mapping) else str(value)
    return text[:HASH_CHARACTERS] if len(text) == hashlib.sha256().digest_size * 2 else text
