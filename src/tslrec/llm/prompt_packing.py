"""Packs whole prompts of tokens into few rows; what a prompt shares with the common prefix is not packed.

Shapes: B prompts, R rows, T tokens of a row, P tokens of the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.packing import RowLayout, first_fit, pack_rows
from tslrec.llm.packing import NO_EXAMPLE

ATTENTION_WIDTH = 3072
"""Length of a row at which attention over the row takes as many operations as all other products of a small model, such
as SmolLM2 135M; of a larger one it is longer. Wider rows leave less padding, but their tokens are compared with more
others."""

WIDENING = 1.01
"""By what rows grow that are too short for the prompts."""

TRIALS = 256
"""Numbers of rows that are tried: all of them, of batches up to this size."""

WIDEST = 4
"""The longest row that is tried, in longest prompts: more of them to a row save hardly any padding."""


class PackedPrompts(NamedTuple):
    """A batch of prompts, packed into rows.

    Attributes:
        tokens_RT: int64, token ids; 0 at padding, which `examples_RT` tells.
        examples_RT: int64; the prompt that the token belongs to, from 0; `NO_EXAMPLE` for padding.
        positions_RT: int64; the token's position in its whole prompt, what it shares included; 0 at padding.
        shared_B: int64; how many tokens of the prefix each prompt begins with: these are not in the rows.
        last_B: int64; index of each prompt's last token in the flattened rows.
    """

    tokens_RT: Tensor
    examples_RT: Tensor
    positions_RT: Tensor
    shared_B: Tensor
    last_B: Tensor

    def to(self, device: torch.device) -> PackedPrompts:
        """A copy on another device; from pinned memory to a GPU, the copy runs beside the program."""
        return PackedPrompts(*(each.to(device, non_blocking=True) for each in self))

    def groups(self, tokens: int) -> list[tuple[PackedPrompts, Tensor]]:
        """Groups of rows, each with the indices of its prompts, int64; together they hold all rows.

        Args:
            tokens: tokens of a group at most, padding included; a longer row is a group of its own.
        """
        num_rows, width = self.tokens_RT.shape
        rows = max(1, tokens // max(1, width))
        if num_rows <= rows:
            return [(self, torch.arange(len(self.last_B), device=self.last_B.device))]
        found = []
        for begin in range(0, num_rows, rows):
            end = min(begin + rows, num_rows)
            first = begin * width
            inside_B = (self.last_B >= first) & (self.last_B < end * width)
            part = PackedPrompts(
                self.tokens_RT[begin:end],
                self.examples_RT[begin:end],
                self.positions_RT[begin:end],
                # The rows name prompts by their number in the whole batch.
                self.shared_B,
                self.last_B[inside_B] - first,
            )
            found.append((part, inside_B.nonzero().flatten()))
        return found

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the rows that are not padding."""
        return int((self.examples_RT != NO_EXAMPLE).sum())


@dataclass(frozen=True)
class PromptPacker:
    """Builds `PackedPrompts`.

    Attributes:
        prefix: token ids with which prompts begin. A prompt that was cut begins with fewer of them, or with none.
        packs: put several prompts into a row; False gives each a row of its own.
        kept: tokens at the end of every prompt that are packed even where the prefix has them, too: their states are
            read.
    """

    prefix: tuple[int, ...] = ()
    packs: bool = True
    kept: int = 1

    def __call__(self, prompts: Sequence[NDArray[np.int64]]) -> PackedPrompts:
        """Packs prompts.

        Args:
            prompts: token ids of each, longer than `kept`.

        Returns:
            The packed prompts; without prompts they have no rows.
        """
        shared_B = np.array([self.shared(prompt) for prompt in prompts], dtype=np.int64)
        lengths_B = np.array([len(prompt) for prompt in prompts], dtype=np.int64) - shared_B
        rows_B, columns_B, shape = cheapest_rows(lengths_B) if self.packs else pack_rows(lengths_B, None)
        tokens_RT, examples_RT = np.zeros(shape, dtype=np.int64), np.full(shape, NO_EXAMPLE)
        positions_RT = np.zeros(shape, dtype=np.int64)
        for b, prompt in enumerate(prompts):
            place = rows_B[b], slice(columns_B[b], columns_B[b] + lengths_B[b])
            tokens_RT[place] = prompt[shared_B[b] :]
            examples_RT[place] = b
            positions_RT[place] = np.arange(shared_B[b], len(prompt))
        last_B = rows_B * shape[1] + columns_B + lengths_B - 1
        return PackedPrompts(
            *(torch.from_numpy(each) for each in (tokens_RT, examples_RT, positions_RT, shared_B, last_B))
        )

    def shared(self, prompt: NDArray[np.int64]) -> int:
        """With how many tokens of the prefix a prompt begins."""
        most = min(len(self.prefix), len(prompt) - self.kept)
        equal = prompt[:most] == np.array(self.prefix[:most], dtype=np.int64)
        return most if equal.all() else int(np.argmin(equal))


def cheapest_rows(lengths_B: NDArray[np.int64]) -> RowLayout:
    """Distributes prompts over rows of the length that costs least: little padding, but no overlong rows.

    Args:
        lengths_B: lengths of the prompts.
    """
    if len(lengths_B) == 0:
        return pack_rows(lengths_B, None)
    total, longest = int(lengths_B.sum()), int(lengths_B.max())
    # Rows cannot be shorter than the longest prompt: with more rows than that takes, the layout stays the same.
    fewest, most = -(-total // (WIDEST * longest)), first_fit(lengths_B, longest).shape[0]
    tried = np.unique(np.linspace(fewest, most, min(TRIALS, most - fewest + 1)).astype(np.int64))
    layouts = [narrowest(lengths_B, rows) for rows in tried.tolist()]
    return min(layouts, key=lambda layout: cost(*layout.shape))


def narrowest(lengths_B: NDArray[np.int64], rows: int) -> RowLayout:
    """Distributes prompts over at most so many rows, which are as short as that allows.

    Args:
        lengths_B: lengths of the prompts.
        rows: how many rows at most.
    """
    width = max(int(lengths_B.max()), -(-int(lengths_B.sum()) // rows))
    while (layout := first_fit(lengths_B, width)).shape[0] > rows:
        width = int(width * WIDENING) + 1
    return layout


def cost(rows: int, width: int) -> float:
    """What rows cost, in tokens without attention."""
    return rows * width * (1 + width / ATTENTION_WIDTH)
