"""How P5's texts are packed, in training as in a finished recommender; free of the training code.

Shapes: U users, L (user, item) pairs of histories.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tslrec.llm.encoder_decoder.packing import Packer
from tslrec.llm.encoder_decoder.trie import Trie

PACKER = Packer(loss_by_rows=True)
"""P5's loss is the mean over texts of each one's mean over its tokens."""


def seen_of(trie: Trie, rows_L: NDArray[np.int64], items_L: NDArray[np.int64], num_users: int) -> Tensor:
    """What a masked search looks up (`Trie.seen`).

    Args:
        trie: of all items.
        rows_L: the user of each pair, from 0, not falling.
        items_L: the item of each pair.
        num_users: U.
    """
    return trie.seen(np.split(items_L, np.searchsorted(rows_L, np.arange(1, num_users))))
