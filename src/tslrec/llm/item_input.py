"""How an item enters a prompt: as its projected embedding (the paper's Eq. 1), as the tokens of its title, or as both.

Shapes: I items (row 0 is padding), N items, T tokens of a title.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

EMBEDDING = "embedding"
"""The item is its projected embedding, as in the paper."""

TITLE = "title"
"""The item is the tokens of its title."""

BOTH = "both"
"""The item is its projected embedding, followed by the tokens of its title."""


@dataclass(frozen=True)
class ItemInput:
    """What of each item a language model reads.

    Attributes:
        has_embedding: whether the item's projected embedding comes first.
        titles: token ids of the title of each item `[I + 1]`, each int64 `[T]`, which come then; None: titles are not
            read.
    """

    has_embedding: bool = True
    titles: Sequence[NDArray[np.int64]] | None = None

    def of_items(self, items_N: NDArray[np.int64]) -> ItemInput:
        """The same for a table of items in another order: its row n is item `items_N[n - 1]`, row 0 is padding."""
        if self.titles is None:
            return self
        return replace(self, titles=[self.titles[0], *(self.titles[item] for item in items_N)])

    def tokens(self, history: NDArray[np.int64], num_response: int) -> NDArray[np.int64]:
        """The tokens of some items, one item after the other, as `PackedExamples` numbers them.

        Args:
            history: the items' numbers, from 1.
            num_response: tokens of the response, whose numbers come before those of words.
        """
        if self.titles is None:
            return history
        words = [-1 - num_response - self.titles[item] for item in history]
        if not self.has_embedding:
            return np.concatenate(words)
        return np.concatenate([part for item, title in zip(history, words, strict=True) for part in ([item], title)])

    def digest_titles(self, items: Iterable[int]) -> str | None:
        """Hex sha256 of the tokens of some items' titles, in that order; None if titles are not read."""
        if self.titles is None:
            return None
        state = hashlib.sha256()
        for item in items:
            state.update(" ".join(map(str, self.titles[item].tolist())).encode() + b"\n")
        return state.hexdigest()


EMBEDDINGS = ItemInput()
"""The paper's: items are their projected embeddings."""
