"""A small vocabulary that cuts words as T5's does: `▁` before each word, digits in pairs, unknown words whole."""

from __future__ import annotations

import re
from collections.abc import Mapping

PARTS = re.compile(r"▁\d{1,2}|▁?[A-Za-z]+|▁?[^\W\d_]+|_|\d{1,2}|▁?[^\w\s▁]")
"""The beginnings of tokens: a word with its mark, `_`, two digits, or a sign."""


class ToyVocabulary:
    """Tokens of texts, and their ids in the order in which they are met, or as given.

    Args:
        ids: ids by token; None: each new token gets the next one, from 2 (0 is padding, 1 `</s>`).
    """

    def __init__(self, ids: Mapping[str, int] | None = None) -> None:
        self.ids = {"<pad>": 0, "</s>": 1} if ids is None else dict(ids)
        self.fixed = ids is not None

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        return [token for word in text.split() for token in PARTS.findall(f"▁{word}")]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        """The ids of tokens."""
        for token in tokens:
            if not self.fixed:
                self.ids.setdefault(token, len(self.ids))
        return [self.ids[token] for token in tokens]
