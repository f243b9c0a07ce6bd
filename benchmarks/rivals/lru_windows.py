"""What both sides of `rivals_lru.py` train on: the same windows of the same users, in a file that needs numpy alone.

A window is the last `max_len` + 1 items of a user's training part: at most `max_len` inputs, each with the item after
it as its target.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HIDDEN_SIZE, NUM_LAYERS, DROPOUT, LEARNING_RATE = 64, 2, 0.2, 1e-3
"""Of both sides: the authors' own."""
WARM_UP_STEPS = 3


class Windows(NamedTuple):
    """The windows of all users.

    Attributes:
        items: int64, item ids from 1, window after window.
        lengths: int64, the items of each window, 2 or more.
        max_len: the longest input.
        num_items: items of the data set.
    """

    items: NDArray[np.int64]
    lengths: NDArray[np.int64]
    max_len: int
    num_items: int

    def split(self) -> list[NDArray[np.int64]]:
        """The items of each window."""
        return np.split(self.items, np.cumsum(self.lengths)[:-1])


def save_windows(windows: Windows, path: Path) -> None:
    """Writes the windows as NPZ."""
    np.savez(path, **windows._asdict())


def load_windows(path: Path) -> Windows:
    """Reads what `save_windows` wrote."""
    with np.load(path) as file:
        return Windows(file["items"], file["lengths"], int(file["max_len"]), int(file["num_items"]))


def parse_side(description: str | None, *, code: bool) -> argparse.Namespace:
    """Reads the command line of a side: `--windows`, `--batch`, `--steps` and, where asked for, `--code`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--windows", required=True, type=Path, metavar="FILE", help="what rivals_lru.py wrote")
    parser.add_argument("--batch", required=True, type=int, help="windows of an optimizer step")
    parser.add_argument("--steps", required=True, type=int, help="steps to time")
    if code:
        parser.add_argument(
            "--code", required=True, type=Path, metavar="FOLDER", help="a checkout of the authors' code"
        )
    return parser.parse_args()
