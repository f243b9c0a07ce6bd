"""Builds the configured encoder-decoder: random weights, or a T5's with what it lacks drawn at random."""

from __future__ import annotations

import logging
from pathlib import Path

from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.source import shape_of
from tslrec.llm.encoder_decoder.t5_weights import load_t5
from tslrec.settings.language_models import EncoderDecoderConfig

log = logging.getLogger(__name__)


def build(t5: EncoderDecoderConfig, vocabulary: int, *, num_known: int = 0, num_prompts: int = 0) -> EncoderDecoder:
    """Builds the model; what is random comes from torch's random state.

    Args:
        t5: sizes or files.
        vocabulary: number of token ids.
        num_known: with files: token ids below this are those of the T5's own tokenizer; the others are new.
        num_prompts: rows of continuous prompts.

    Raises:
        UserError: if `t5.path` does not hold a T5 that fits.
    """
    model = EncoderDecoder(
        shape_of(t5), vocabulary, num_prompts=num_prompts, whole_words=t5.whole_words, dropout=t5.dropout
    )
    if t5.path is None:
        log.info("no weights of a T5 are given (t5.path): all weights are drawn at random")
    else:
        load_t5(model, Path(t5.path).expanduser(), num_known=num_known)
    return model
