"""Which whole word each token of a prompt belongs to, as POD numbers them (lileipisces/POD fd31697)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

JOINT = "_"
"""The token between `user` or `item` and its number."""


def whole_words(tokens: Sequence[str]) -> NDArray[np.int64]:
    """The number of each token's whole word, int64, as long as `tokens`.

    The k-th `user_…` or `item_…` of the text has k on the token before `_`, on `_`, and on the tokens of digits after
    it. All other tokens have 0, punctuation and `</s>` among them.

    Args:
        tokens: of a whole text, or of one of its words.
    """
    numbers = np.zeros(len(tokens), dtype=np.int64)
    place = count = 0
    while place < len(tokens):
        if tokens[place] == JOINT:
            count += 1
            end = place + 1
            while end < len(tokens) and tokens[end].isdigit():
                end += 1
            numbers[max(place - 1, 0) : end] = count
            place = end
        else:
            place += 1
    return numbers
