"""A small T5 of random weights, and sources for it."""

from __future__ import annotations

import numpy as np
import torch

from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.shape import END, EncoderDecoderShape

VOCABULARY, NUM_PROMPTS, NUM_TASKS = 40, 3, 2
SHAPE = EncoderDecoderShape(d_model=16, d_kv=4, d_ff=32, num_layers=2, num_decoder_layers=2, num_heads=4)


def random_model(seed: int = 0, num_prompts: int = NUM_PROMPTS * NUM_TASKS, dropout: float = 0.1) -> EncoderDecoder:
    """The T5, in evaluation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EncoderDecoder(SHAPE, VOCABULARY, num_prompts=num_prompts, whole_words=64, dropout=dropout).eval()


def random_tokens(rng: np.random.Generator, length: int) -> np.ndarray:
    """A source or target of so many tokens, the end token among them."""
    return np.append(rng.integers(2, VOCABULARY, length - 1), END)
