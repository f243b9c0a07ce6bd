"""Parameters, operations and memory of an encoder-decoder language model (T5) that is trained as a whole.

Shapes: B sources and targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.data.batching import RandomBatches
from tslrec.llm.encoder_decoder.shape import NUM_WHOLE_WORDS, EncoderDecoderShape
from tslrec.reports.costs.memory import CONTEXT_BYTES, GIB, STATE_BYTES, WORKSPACE_BYTES

TRAINING_PASSES = 3
"""A training step costs as much as so many forward passes: the backward pass computes those of states and weights."""

WIDTH = 4
"""Bytes of a weight and of a number of a state: T5 is trained in float32, for it overflows in float16."""


@dataclass(frozen=True)
class Texts:
    """Sources with their targets.

    Attributes:
        sources_B: tokens of each source, prompt vectors and `</s>` included.
        targets_B: tokens of each target, `</s>` included.
    """

    sources_B: NDArray[np.int64]
    targets_B: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sources_B)

    @property
    def tokens(self) -> int:
        """Tokens of all sources and targets."""
        return int(self.sources_B.sum() + self.targets_B.sum())

    def padded(self, batch_size: int, seed: int) -> Texts:
        """The same texts as long as the longest source and the longest target of their batches."""
        sources_B, targets_B = np.empty_like(self.sources_B), np.empty_like(self.targets_B)
        for batch in RandomBatches(len(self), batch_size, seed):
            sources_B[batch] = self.sources_B[batch].max()
            targets_B[batch] = self.targets_B[batch].max()
        return Texts(sources_B, targets_B)


def encoder_parameters(shape: EncoderDecoderShape) -> int:
    """Weights of the encoder's linear layers: every source token is multiplied with each of them once."""
    return shape.num_layers * (4 * shape.d_model * shape.inner + 2 * shape.d_model * shape.d_ff)


def decoder_parameters(shape: EncoderDecoderShape) -> int:
    """Weights of the decoder's linear layers that a target token is multiplied with.

    Those are self-attention's four, the query and the output of cross-attention, and the feed-forward layer's two.
    """
    return shape.num_decoder_layers * (6 * shape.d_model * shape.inner + 2 * shape.d_model * shape.d_ff)


def cross_parameters(shape: EncoderDecoderShape) -> int:
    """Weights of the decoder that a source token is multiplied with: keys and values of cross-attention."""
    return shape.num_decoder_layers * 2 * shape.d_model * shape.inner


def num_parameters(
    shape: EncoderDecoderShape, vocabulary: int, prompts: int = 0, whole_words: int = NUM_WHOLE_WORDS
) -> int:
    """All parameters, the tables of whole words and of prompt vectors included; the output layer is the token table.

    Args:
        shape: sizes.
        vocabulary: number of tokens.
        prompts: number of prompt vectors.
        whole_words: rows of the table of whole words.
    """
    norms = 2 * shape.num_layers + 3 * shape.num_decoder_layers + 2
    positions = 2 * shape.relative_attention_num_buckets * shape.num_heads
    tables = vocabulary + whole_words + prompts
    linear = encoder_parameters(shape) + decoder_parameters(shape) + cross_parameters(shape)
    return linear + (norms + tables) * shape.d_model + positions


def source_flops(shape: EncoderDecoderShape, sources_B: NDArray[np.int64]) -> float:
    """Floating-point operations of encoding sources, and of the decoder's keys and values of them."""
    tokens, seen = float(sources_B.sum()), float((sources_B.astype(np.float64) ** 2).sum())
    linear = encoder_parameters(shape) + cross_parameters(shape)
    return 2.0 * linear * tokens + 4.0 * shape.num_layers * shape.inner * seen


def forward_flops(shape: EncoderDecoderShape, vocabulary: int, texts: Texts) -> float:
    """Floating-point operations of a forward pass with the logits of all target tokens."""
    sources_B, targets_B = texts.sources_B.astype(np.float64), texts.targets_B.astype(np.float64)
    seen = float((targets_B * (targets_B + 1) / 2 + targets_B * sources_B).sum())
    of_targets = 2.0 * (decoder_parameters(shape) + vocabulary * shape.d_model) * float(targets_B.sum())
    return source_flops(shape, texts.sources_B) + of_targets + 4.0 * shape.num_decoder_layers * shape.inner * seen


def beam_flops(
    shape: EncoderDecoderShape, vocabulary: int, sources_B: NDArray[np.int64], length: int, beams: int, searches: int
) -> float:
    """Floating-point operations of beam searches after each source, keys and values kept.

    Args:
        shape: sizes.
        vocabulary: number of tokens.
        sources_B: tokens of each source.
        length: tokens that are generated, `</s>` included. The first one has one beam, each later one all of them.
        beams: beams of a search.
        searches: searches per source, as one per ranking protocol; a source is encoded once.
    """
    steps = 1 + beams * (length - 1)
    itself = 1 + beams * (length * (length + 1) / 2 - 1)
    seen = float((steps * sources_B.astype(np.float64) + itself).sum())
    linear = 2.0 * (decoder_parameters(shape) + vocabulary * shape.d_model) * steps * len(sources_B)
    once = linear + 4.0 * shape.num_decoder_layers * shape.inner * seen
    return source_flops(shape, sources_B) + searches * once


def kept_bytes(shape: EncoderDecoderShape, vocabulary: int, texts: Texts, mask_width: int = 1) -> float:
    """Bytes that the forward pass of a training step keeps for its backward pass.

    Counted per token and layer, as PyTorch saves tensors: an attention block keeps the input of its norm and what the
    norm gives, queries, keys, values and the attention's output; its probabilities twice, before and after dropout; a
    feed-forward block the input of its norm, what the norm gives and the inner states. Dropout keeps a mask. The logits
    and their softmax are kept for each label.

    Args:
        shape: sizes.
        vocabulary: number of tokens.
        texts: of the step.
        mask_width: bytes of a number of a dropout mask, 1 on GPUs.
    """
    sources_B, targets_B = texts.sources_B.astype(np.float64), texts.targets_B.astype(np.float64)
    source, target = float(sources_B.sum()), float(targets_B.sum())
    size, inner = shape.d_model, shape.inner
    block = 2 * size * WIDTH + size * mask_width
    attention = block + 4 * inner * WIDTH
    feed_forward = block + shape.d_ff * (WIDTH + mask_width)
    probability = shape.num_heads * (2 * WIDTH + mask_width)
    encoder = source * (attention + feed_forward) + float((sources_B**2).sum()) * probability
    # In cross-attention targets have queries and outputs, sources keys and values.
    crossed = target * (block + 2 * inner * WIDTH) + source * 2 * inner * WIDTH
    seen = float((targets_B**2 + targets_B * sources_B).sum())
    decoder = target * (attention + feed_forward) + crossed + seen * probability
    logits = 2 * target * vocabulary * WIDTH
    return shape.num_layers * encoder + shape.num_decoder_layers * decoder + logits


def memory_gib(shape: EncoderDecoderShape, vocabulary: int, parameters: int, largest: Texts) -> float:
    """Memory of training on one device in GiB: parameters with gradients and Adam's moments, and the largest step.

    Args:
        shape: sizes.
        vocabulary: number of tokens.
        parameters: of the whole model.
        largest: the texts of the largest step.
    """
    states = parameters * STATE_BYTES
    return (states + kept_bytes(shape, vocabulary, largest) + WORKSPACE_BYTES + CONTEXT_BYTES) / GIB
