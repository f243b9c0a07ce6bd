"""T5's layers, on tokens of many sources laid out one after the other without a batch dimension.

Every product of states and weights sees one long list of tokens, so no layer computes padding. Only attention needs to
know where a source begins and ends; it gets the places as chunks of equal width, which are views of that list.

Shapes: N tokens, D width of a state, A heads, E size of a head, R rows, T queries of a row, S keys of a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tslrec.llm.encoder_decoder.attention import attend
from tslrec.llm.encoder_decoder.chunks import Chunk
from tslrec.llm.encoder_decoder.shape import EncoderDecoderShape
from tslrec.models.dropout import Dropout


class Norm(nn.Module):
    """Root-mean-square normalisation: no mean is taken off, no bias is added."""

    def __init__(self, shape: EncoderDecoderShape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape.d_model))
        self.epsilon = shape.layer_norm_epsilon

    def forward(self, states: Tensor) -> Tensor:
        """Normalises the last dimension."""
        return F.rms_norm(states, self.weight.shape, self.weight, self.epsilon)


class FeedForward(nn.Module):
    """x + dropout(W2 dropout(relu(W1 norm(x))))."""

    def __init__(self, shape: EncoderDecoderShape, dropout: float) -> None:
        super().__init__()
        self.norm = Norm(shape)
        self.expand = nn.Linear(shape.d_model, shape.d_ff, bias=False)
        self.contract = nn.Linear(shape.d_ff, shape.d_model, bias=False)
        self.inner_dropout, self.dropout = Dropout(dropout), Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """Transforms states `[..., D]`."""
        inner = self.inner_dropout(F.relu(self.expand(self.norm(states))))
        return states + self.dropout(self.contract(inner))


class SelfAttention(nn.Module):
    """x + dropout(attention among the tokens of a source)."""

    def __init__(self, shape: EncoderDecoderShape, dropout: float) -> None:
        super().__init__()
        self.head_size = shape.d_kv
        self.norm = Norm(shape)
        self.query_key_value = nn.Linear(shape.d_model, 3 * shape.inner, bias=False)
        self.output = nn.Linear(shape.inner, shape.d_model, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, states_ND: Tensor, chunks: Sequence[Chunk], biases: Sequence[Tensor]) -> Tensor:
        """Attention within each row of each chunk.

        Args:
            states_ND: the states of all chunks, one after the other.
            chunks: where the rows are.
            biases: one per chunk, `[R or 1, A, S, S]`, added to the scores.
        """
        projected_N3AE = self.query_key_value(self.norm(states_ND)).unflatten(-1, (3, -1, self.head_size))
        attended = []
        for part, bias in zip(split_into_chunks(projected_N3AE, chunks), biases, strict=True):
            query, key, value = part.unbind(2)
            attended.append(attend(query, key, value, bias, self.attention_dropout).flatten(0, 1))
        return states_ND + self.dropout(self.output(joined(attended)))

    def step(self, states_RTD: Tensor, cached_RT2AE: Tensor | None, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of new tokens to those before them and to themselves.

        Args:
            states_RTD: the new tokens' states.
            cached_RT2AE: keys and values of the tokens before; None where there are none.
            bias: `[1, A, T, S]`, S old and new tokens.

        Returns:
            The new states, and keys and values of all tokens.
        """
        projected = self.query_key_value(self.norm(states_RTD)).unflatten(-1, (3, -1, self.head_size))
        query, known = projected[:, :, 0], projected[:, :, 1:]
        if cached_RT2AE is not None:
            known = torch.cat([cached_RT2AE, known], dim=1)
        attended = attend(query, known[:, :, 0], known[:, :, 1], bias, self.attention_dropout)
        return states_RTD + self.dropout(self.output(attended)), known

    @property
    def attention_dropout(self) -> float:
        """Probability of dropping an attention weight: the layer's own dropout, in training."""
        return self.dropout.p if self.training else 0.0


class CrossAttention(nn.Module):
    """x + dropout(attention of a target's tokens to those of its source)."""

    def __init__(self, shape: EncoderDecoderShape, dropout: float) -> None:
        super().__init__()
        self.head_size = shape.d_kv
        self.norm = Norm(shape)
        self.query = nn.Linear(shape.d_model, shape.inner, bias=False)
        self.key_value = nn.Linear(shape.d_model, 2 * shape.inner, bias=False)
        self.output = nn.Linear(shape.inner, shape.d_model, bias=False)
        self.dropout = Dropout(dropout)

    def keys_and_values(self, encoded_ND: Tensor) -> Tensor:
        """Keys and values of all source tokens, `[N, 2, A, E]`."""
        projected: Tensor = self.key_value(encoded_ND)
        return projected.unflatten(-1, (2, -1, self.head_size))

    def forward(
        self, states_RTD: Tensor, known_N2AE: Tensor, chunks: Sequence[Chunk], masks: Sequence[Tensor | None]
    ) -> Tensor:
        """Attention of row r to source r.

        Args:
            states_RTD: states of the targets' tokens, one row per source, in the sources' order.
            known_N2AE: from `keys_and_values`.
            chunks: where the sources are.
            masks: one per chunk, `[R, 1, 1, S]`, added to the scores; None sees all.
        """
        query_RTAE = self.query(self.norm(states_RTD)).unflatten(-1, (-1, self.head_size))
        dropout, attended = (self.dropout.p if self.training else 0.0), []
        queries = query_RTAE.split([chunk.rows for chunk in chunks])
        for query, part, mask in zip(queries, split_into_chunks(known_N2AE, chunks), masks, strict=True):
            key, value = part.unbind(2)
            attended.append(attend(query, key, value, mask, dropout))
        return states_RTD + self.dropout(self.output(joined(attended)))


def split_into_chunks(states: Tensor, chunks: Sequence[Chunk]) -> list[Tensor]:
    """Views of each chunk's rows, `[R, S, …]`.

    They are split at once: the gradient of a slice would be as large as all chunks, once for each of them.

    Args:
        states: of all tokens, `[N, …]`.
        chunks: where the rows are.
    """
    parts = states.split([chunk.rows * chunk.width for chunk in chunks])
    return [part.unflatten(0, (chunk.rows, chunk.width)) for part, chunk in zip(parts, chunks, strict=True)]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """The parts, one after the other; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
