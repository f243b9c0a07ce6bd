"""Which whole word each token belongs to, as P5 numbers them (RIVALS.md, 3.9; OpenP5, commit 7f11038).

Shapes: B texts, S tokens of the longest one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LARGEST = 511
"""The largest number of a word: the table of whole words has 512 rows. Words after it share its row."""


def whole_words(starts_BS: NDArray[np.bool_], counted_BS: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of each token's word, int64 `[B, S]`: how many words have begun up to it in its text.

    Args:
        starts_BS: whether a token begins a word (with `▁`).
        counted_BS: False at `</s>` and padding, which belong to no word and have 0.
    """
    numbers_BS = np.minimum(np.cumsum(starts_BS & counted_BS, axis=1, dtype=np.int64), LARGEST)
    return np.where(counted_BS, numbers_BS, 0)


def released_whole_words(starts_BS: NDArray[np.bool_], is_padding_BS: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What the public code computes of a padded batch: only the last column is 0, so the result depends on the batch.

    In all rows but the longest, `</s>` has the number of the last word.

    Args:
        starts_BS: whether a token begins a word.
        is_padding_BS: whether it is padding.
    """
    numbers_BS = whole_words(starts_BS, ~is_padding_BS)
    numbers_BS[:, -1:] = 0
    return numbers_BS
