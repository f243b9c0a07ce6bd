"""Sizes of an encoder-decoder language model; nothing heavy is imported, so that a wrong number is refused at once."""

from __future__ import annotations

from dataclasses import dataclass

PADDING = 0
"""Token id of padding in T5's vocabularies. The decoder's input begins with it, too."""

END = 1
"""Token id of `</s>` in T5's vocabularies."""

NUM_WHOLE_WORDS = 512
"""Rows of the table of whole words, in the public code of P5 and of POD."""


@dataclass(frozen=True)
class EncoderDecoderShape:
    """T5 (Raffel et al. 2020); the defaults are T5-small's, the names are those of its config.json.

    Attributes:
        d_model: width of the states.
        d_kv: size of an attention head.
        d_ff: width inside the feed-forward layers.
        num_layers: layers of the encoder.
        num_decoder_layers: layers of the decoder.
        num_heads: attention heads.
        relative_attention_num_buckets: rows of each of the two tables of relative positions.
        relative_attention_max_distance: all distances from this one on share a row.
        layer_norm_epsilon: added to the mean square before its root.
    """

    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int = 6
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6

    @property
    def inner(self) -> int:
        """Width of the queries of all heads."""
        return self.num_heads * self.d_kv
