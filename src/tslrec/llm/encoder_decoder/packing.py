"""Lays the sources of a step out one after the other, with next to no padding, and their targets beside them.

Prefixes of users differ in length by a factor of ten, and in a padded batch one long history makes every other row as
long. Here the sources are sorted by length and cut into chunks of about equal length. The tokens of all chunks form one
list, which is all that most layers see; attention sees one chunk at a time, so a source never sees another one.

Shapes: B sources (and targets), N tokens of all sources with their padding, T tokens of a target, M labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.llm.encoder_decoder.chunks import Chunk, few_chunks, one_chunk
from tslrec.llm.encoder_decoder.shape import PADDING


class Sources(NamedTuple):
    """Encoder inputs of a step.

    Attributes:
        tokens_N: int64, token ids; -1 - r stands for row r of the continuous prompts.
        whole_words_N: int64, the number of the word that the token is part of; 0: none.
        real_N: bool, False for padding.
        order_B: int64; `order_B[r]` is the source (in the caller's order) in row r of the chunks.
        chunks: where the sources are.
        cross_padding: whether the decoder sees padding, which POD's public code does.
    """

    tokens_N: Tensor
    whole_words_N: Tensor
    real_N: Tensor
    order_B: Tensor
    chunks: tuple[Chunk, ...]
    cross_padding: bool

    def to(self, device: torch.device) -> Sources:
        """A copy on another device; from pinned memory to a GPU, the copy runs beside the program."""
        tokens_N, words_N, real_N, order_B = (each.to(device, non_blocking=True) for each in self[:4])
        return Sources(tokens_N, words_N, real_N, order_B, self.chunks, self.cross_padding)

    @property
    def num_tokens(self) -> int:
        """Tokens that are computed, padding included."""
        return len(self.tokens_N)

    def rows(self, states_ND: Tensor) -> list[Tensor]:
        """The states of each source, in the caller's order, without those of padding."""
        found: list[Tensor] = [states_ND] * len(self.order_B)
        order = iter(self.order_B.tolist())
        for chunk in self.chunks:
            shape = chunk.rows, chunk.width
            pairs = zip(states_ND[chunk.place].unflatten(0, shape), self.real_N[chunk.place].view(shape), strict=True)
            for states, real in pairs:
                found[next(order)] = states[real]
        return found


class Batch(NamedTuple):
    """Sources and targets of an optimizer step; the targets are in the order of the sources' rows.

    Attributes:
        sources: the encoder's inputs.
        inputs_BT: int64, the decoder's inputs: each target, one place later.
        places_M: int64, where labels are in the flattened `inputs_BT`.
        labels_M: int64, what comes next there.
        weights_M: float32, each label's share of the loss; they sum to 1.
    """

    sources: Sources
    inputs_BT: Tensor
    places_M: Tensor
    labels_M: Tensor
    weights_M: Tensor

    def to(self, device: torch.device) -> Batch:
        """A copy on another device."""
        return Batch(self.sources.to(device), *(each.to(device, non_blocking=True) for each in self[1:]))


@dataclass(frozen=True)
class Packer:
    """Builds `Sources` and `Batch`.

    Attributes:
        num_prompts: continuous prompt vectors before each source; those of task t are rows t × num_prompts and on.
        loss_by_rows: the loss is the mean over targets of each one's mean over its labels (P5), instead of the mean
            over all labels (POD).
        released: what POD's public code does: the decoder sees the padding of sources, and the padding of targets is
            labels like others. So results depend on which sources share a batch.
    """

    num_prompts: int = 0
    loss_by_rows: bool = True
    released: bool = False

    def sources(
        self,
        tokens: Sequence[NDArray[np.int64]],
        whole_words: Sequence[NDArray[np.int64]],
        tasks: Sequence[int] | None = None,
    ) -> Sources:
        """Lays out encoder inputs.

        Args:
            tokens: token ids of each source, one or more, ending in `</s>`.
            whole_words: numbers of whole words, as long as `tokens`.
            tasks: each source's task, where there are prompt vectors.

        Returns:
            The sources, none where `tokens` is empty.
        """
        if (tasks is not None) != (self.num_prompts > 0):
            raise ValueError("tasks are given where there are prompt vectors, and only there")
        lengths_B = np.array([len(each) for each in tokens], dtype=np.int64) + self.num_prompts
        order_B, chunks = one_chunk(lengths_B) if self.released else few_chunks(lengths_B)
        num_tokens = sum(chunk.rows * chunk.width for chunk in chunks)
        tokens_N = np.full(num_tokens, PADDING, dtype=np.int64)
        words_N, real_N = np.zeros(num_tokens, dtype=np.int64), np.zeros(num_tokens, dtype=bool)
        starts = np.concatenate([c.start + c.width * np.arange(c.rows) for c in chunks]) if chunks else np.zeros(0, int)
        for b, start in zip(order_B, starts, strict=True):
            begin, end = start + self.num_prompts, start + lengths_B[b]
            if tasks is not None:
                tokens_N[start:begin] = -1 - (tasks[b] * self.num_prompts + np.arange(self.num_prompts))
            tokens_N[begin:end], words_N[begin:end], real_N[start:end] = tokens[b], whole_words[b], True
        read = torch.from_numpy
        return Sources(read(tokens_N), read(words_N), read(real_N), read(order_B), chunks, self.released)

    def __call__(
        self,
        tokens: Sequence[NDArray[np.int64]],
        whole_words: Sequence[NDArray[np.int64]],
        targets: Sequence[NDArray[np.int64]],
        tasks: Sequence[int] | None = None,
    ) -> Batch:
        """Lays out sources and targets; see `sources`.

        Args:
            tokens: token ids of each source.
            whole_words: numbers of whole words, as long as `tokens`.
            targets: token ids of each target, one or more, ending in `</s>`.
            tasks: each source's task, where there are prompt vectors.
        """
        sources = self.sources(tokens, whole_words, tasks)
        lengths_B = np.array([len(targets[b]) for b in sources.order_B.tolist()], dtype=np.int64)
        width = int(lengths_B.max(initial=0))
        labels_BT = np.full((len(lengths_B), width), PADDING, dtype=np.int64)
        for row, b in enumerate(sources.order_B.tolist()):
            labels_BT[row, : lengths_B[row]] = targets[b]
        if self.released:
            lengths_B[:] = width
        inputs_BT = np.full_like(labels_BT, PADDING)
        inputs_BT[:, 1:] = labels_BT[:, :-1]
        counted_BT = np.arange(width) < lengths_B[:, None]
        rows_M, columns_M = np.nonzero(counted_BT)
        weights_M = 1 / (lengths_B[rows_M] * len(lengths_B)) if self.loss_by_rows else np.full(len(rows_M), 1.0)
        weights_M = (weights_M / weights_M.sum()).astype(np.float32)
        arrays = inputs_BT, rows_M * width + columns_M, labels_BT[counted_BT], weights_M
        return Batch(sources, *(torch.from_numpy(each) for each in arrays))
