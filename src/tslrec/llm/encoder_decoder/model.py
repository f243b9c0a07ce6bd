"""T5 with whole-word embeddings (P5, Geng et al. 2022) and continuous prompts (POD, Li et al. 2023).

The encoder's input is the token's vector plus that of the word that it is part of; prompt vectors stand before it and
count as positions. The output layer is the table of tokens; states are multiplied by d^-1/2 before it. Equations as in
RIVALS.md 3.9 to 3.15 and 4.1 (OpenP5 7f11038, POD fd31697 on transformers' T5).

Shapes: B sources, N tokens of all sources with their padding, D width of a state, A heads, K targets of a source, T
tokens of a target, V vocabulary, M labels, S keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tslrec.llm.encoder_decoder.chunks import Chunk, in_cache
from tslrec.llm.encoder_decoder.layers import CrossAttention, FeedForward, Norm, SelfAttention
from tslrec.llm.encoder_decoder.packing import Batch, Sources
from tslrec.llm.encoder_decoder.relative_positions import RelativeBias
from tslrec.llm.encoder_decoder.shape import NUM_WHOLE_WORDS, EncoderDecoderShape
from tslrec.models.dropout import Dropout

PROMPT_RANGE = 0.1
"""Prompt vectors are drawn uniformly from minus this to this."""


class SeenSources(NamedTuple):
    """What the decoder needs to know of the sources.

    Attributes:
        chunks: where they are.
        masks: what is hidden of them, one per chunk; see `masks_of`.
    """

    chunks: Sequence[Chunk]
    masks: Sequence[Tensor | None]


class EncoderLayer(nn.Module):
    """Attention among a source's tokens, then a feed-forward layer."""

    def __init__(self, shape: EncoderDecoderShape, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(shape, dropout)
        self.feed_forward = FeedForward(shape, dropout)

    def forward(self, states_ND: Tensor, chunks: Sequence[Chunk], biases: Sequence[Tensor]) -> Tensor:
        """Transforms the states of all source tokens; see `SelfAttention`."""
        states: Tensor = self.feed_forward(self.attention(states_ND, chunks, biases))
        return states


class DecoderLayer(nn.Module):
    """Attention to the target's earlier tokens, then to the source, then a feed-forward layer."""

    def __init__(self, shape: EncoderDecoderShape, dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttention(shape, dropout)
        self.cross_attention = CrossAttention(shape, dropout)
        self.feed_forward = FeedForward(shape, dropout)

    def forward(
        self, states_BKTD: Tensor, earlier: Tensor | None, bias: Tensor, known_N2AE: Tensor, sources: SeenSources
    ) -> tuple[Tensor, Tensor]:
        """Transforms the states of targets' tokens.

        Args:
            states_BKTD: states of new tokens of K targets per source, in the order of the sources' rows.
            earlier: keys and values of the targets' tokens before them, `[B * K, S, 2, A, E]`; None: there are none.
            bias: of self-attention, `[1, A, T, S]`, S earlier and new tokens.
            known_N2AE: keys and values of the source tokens.
            sources: where those are, and which are hidden.

        Returns:
            The new states, and keys and values of all the targets' tokens.
        """
        num_sources, _, length, width = states_BKTD.shape
        states, earlier = self.attention.step(states_BKTD.flatten(0, 1), earlier, bias)
        # All targets of a source are queries of one row, so that its keys are read once.
        rows = states.view(num_sources, -1, width)
        states = self.feed_forward(self.cross_attention(rows, known_N2AE, sources.chunks, sources.masks))
        return states.view(num_sources, -1, length, width), earlier


class Encoder(nn.Module):
    """The stack that reads sources."""

    def __init__(self, shape: EncoderDecoderShape, dropout: float) -> None:
        super().__init__()
        self.heads = shape.num_heads
        self.relative_bias = RelativeBias(shape, bidirectional=True)
        self.layers = nn.ModuleList(EncoderLayer(shape, dropout) for _ in range(shape.num_layers))
        self.norm = Norm(shape)
        self.dropout = Dropout(dropout)

    def forward(self, embedded_ND: Tensor, sources: Sources) -> Tensor:
        """States of all source tokens, `[N, D]`."""
        is_training_on_cpu = self.training and embedded_ND.device.type == "cpu"
        chunks = in_cache(sources.chunks, self.heads) if is_training_on_cpu else sources.chunks
        bias_ASS = self.relative_bias(max(chunk.width for chunk in chunks))
        # Made once, for all layers.
        biases = []
        for chunk, mask in zip(chunks, masks_of(sources, chunks, embedded_ND.dtype), strict=True):
            bias = bias_ASS[None, :, : chunk.width, : chunk.width]
            biases.append(bias if mask is None else bias + mask)
        states_ND = self.dropout(embedded_ND)
        for layer in self.layers:
            states_ND = layer(states_ND, chunks, biases)
        normed_ND: Tensor = self.dropout(self.norm(states_ND))
        return normed_ND


class Decoder(nn.Module):
    """The stack that continues targets."""

    def __init__(self, shape: EncoderDecoderShape, dropout: float) -> None:
        super().__init__()
        self.relative_bias = RelativeBias(shape, bidirectional=False)
        self.layers = nn.ModuleList(DecoderLayer(shape, dropout) for _ in range(shape.num_decoder_layers))
        self.norm = Norm(shape)
        self.dropout = Dropout(dropout)

    def causal_bias(self, length: int) -> Tensor:
        """The bias of self-attention with later tokens masked, `[A, T, T]`."""
        bias_ATT: Tensor = self.relative_bias(length)
        later_TT = torch.ones(length, length, dtype=torch.bool, device=bias_ATT.device).triu(1)
        return bias_ATT.masked_fill(later_TT, torch.finfo(bias_ATT.dtype).min)


class EncoderDecoder(nn.Module):
    """The language model; it sees token ids only.

    Args:
        shape: sizes.
        vocabulary: V, token ids are below it.
        num_prompts: rows of continuous prompts: tasks × prompts of a task.
        whole_words: rows of the table of whole words.
        dropout: probability of dropping a state or an attention weight.

    Weights are drawn as T5 draws them (Mesh TensorFlow's initialisation), from torch's random state.
    """

    def __init__(
        self,
        shape: EncoderDecoderShape,
        vocabulary: int,
        *,
        num_prompts: int = 0,
        whole_words: int = NUM_WHOLE_WORDS,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(vocabulary, shape.d_model)
        self.whole_words = nn.Embedding(whole_words, shape.d_model)
        self.prompts = nn.Embedding(num_prompts, shape.d_model) if num_prompts else None
        self.encoder = Encoder(shape, dropout)
        self.decoder = Decoder(shape, dropout)
        draw_weights(self)

    def embed(self, sources: Sources) -> Tensor:
        """The encoder's input, `[N, D]`."""
        words_ND = self.whole_words(sources.whole_words_N)
        if self.prompts is None:
            return self.tokens(sources.tokens_N) + words_ND
        tokens_ND = self.tokens(sources.tokens_N.clamp(min=0)) + words_ND
        prompts_ND = self.prompts((-1 - sources.tokens_N).clamp(min=0))
        return torch.where(sources.tokens_N[:, None] < 0, prompts_ND, tokens_ND)

    def encode(self, sources: Sources) -> Tensor:
        """The encoder's states of all source tokens, `[N, D]`; those of padding mean nothing."""
        encoded_ND: Tensor = self.encoder(self.embed(sources), sources)
        return encoded_ND

    def cross(self, encoded_ND: Tensor) -> list[Tensor]:
        """Keys and values of the source tokens for each decoder layer, `[N, 2, A, E]`."""
        layers = cast(Sequence[DecoderLayer], self.decoder.layers)
        return [layer.cross_attention.keys_and_values(encoded_ND) for layer in layers]

    def decode(self, inputs_BKT: Tensor, cross: Sequence[Tensor], sources: Sources) -> Tensor:
        """The decoder's states, multiplied by d^-1/2, `[B, K, T, D]`.

        Args:
            inputs_BKT: the decoder's inputs, in the order of the sources' rows.
            cross: from `cross`.
            sources: the sources that the targets belong to.
        """
        states_BKTD = self.decoder.dropout(self.tokens(inputs_BKT))
        bias = self.decoder.causal_bias(inputs_BKT.shape[2])[None]
        seen = seen_by_decoder(sources, states_BKTD.dtype)
        for layer, known in zip(self.decoder.layers, cross, strict=True):
            states_BKTD, _ = layer(states_BKTD, None, bias, known, seen)
        return self.scaled(states_BKTD)

    def scaled(self, states: Tensor) -> Tensor:
        """The decoder's last states, normalised and multiplied by d^-1/2: what the head takes."""
        normed: Tensor = self.decoder.dropout(self.decoder.norm(states))
        return normed * self.shape.d_model**-0.5

    def logits(self, scaled: Tensor) -> Tensor:
        """The scores of all tokens, `[…, V]`.

        Args:
            scaled: from `scaled` or `decode`, `[…, D]`.
        """
        return F.linear(scaled, self.tokens.weight)

    def label_logits(self, batch: Batch) -> Tensor:
        """The scores of all tokens where there are labels, `[M, V]`."""
        cross = self.cross(self.encode(batch.sources))
        states_BTD = self.decode(batch.inputs_BT[:, None], cross, batch.sources)[:, 0]
        return self.logits(states_BTD.flatten(0, 1)[batch.places_M])

    def forward(self, batch: Batch) -> Tensor:
        """The loss of a batch: cross-entropy over the vocabulary, averaged as the `Packer` says."""
        loss_M = F.cross_entropy(self.label_logits(batch), batch.labels_M, reduction="none")
        return (loss_M * batch.weights_M).sum()


def seen_by_decoder(sources: Sources, dtype: torch.dtype) -> SeenSources:
    """What the decoder sees of the sources; in POD's public code that includes their padding."""
    visible: list[Tensor | None] = [None] * len(sources.chunks)
    return SeenSources(sources.chunks, visible if sources.cross_padding else masks_of(sources, sources.chunks, dtype))


def masks_of(sources: Sources, chunks: Sequence[Chunk], dtype: torch.dtype) -> list[Tensor | None]:
    """What hides padding, one per chunk: `[R, 1, 1, S]` added to the scores; None where there is none.

    Args:
        sources: the sources.
        chunks: where they are.
        dtype: type of the scores.
    """
    masks: list[Tensor | None] = []
    for chunk in chunks:
        if not chunk.padded:
            masks.append(None)
            continue
        real_R11S = sources.real_N[chunk.place].view(chunk.rows, 1, 1, chunk.width)
        masks.append(torch.zeros_like(real_R11S, dtype=dtype).masked_fill_(~real_R11S, torch.finfo(dtype).min))
    return masks


@torch.no_grad()
def draw_weights(model: EncoderDecoder) -> None:
    """Draws all weights anew: T5's normal distributions, N(0, 1) for whole words, uniform prompt vectors."""
    d_model, inner = model.shape.d_model, model.shape.inner
    model.tokens.weight.normal_()
    model.whole_words.weight.normal_()
    if model.prompts is not None:
        model.prompts.weight.uniform_(-PROMPT_RANGE, PROMPT_RANGE)
    for module in model.modules():
        if isinstance(module, Norm):
            module.weight.fill_(1.0)
        elif isinstance(module, RelativeBias):
            module.weight.normal_(std=d_model**-0.5)
        elif isinstance(module, FeedForward):
            module.expand.weight.normal_(std=d_model**-0.5)
            module.contract.weight.normal_(std=model.shape.d_ff**-0.5)
        elif isinstance(module, SelfAttention):
            # The queries carry the scale that the scores lack.
            module.query_key_value.weight[:inner].normal_(std=(d_model * model.shape.d_kv) ** -0.5)
            module.query_key_value.weight[inner:].normal_(std=d_model**-0.5)
            module.output.weight.normal_(std=inner**-0.5)
        elif isinstance(module, CrossAttention):
            module.query.weight.normal_(std=(d_model * model.shape.d_kv) ** -0.5)
            module.key_value.weight.normal_(std=d_model**-0.5)
            module.output.weight.normal_(std=inner**-0.5)
