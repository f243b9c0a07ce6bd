"""Small random encoder-decoders, one of ours and one of transformers' with the same weights, and users for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.packing import Packer, Sources
from tslrec.llm.encoder_decoder.shape import END, EncoderDecoderShape
from tslrec.llm.encoder_decoder.t5_weights import from_t5_names

VOCABULARY = 23


@dataclass(frozen=True)
class Market:
    """Two equal models, codes of items and users.

    Attributes:
        ours: the model under test, without whole words.
        theirs: transformers' T5.
        codes: token ids by item number, behind a common beginning; number 0 is no item.
        tokens: token ids of each user's source.
        seen: each user's seen items.
    """

    ours: EncoderDecoder
    theirs: Any
    codes: list[tuple[int, ...]]
    tokens: list[NDArray[np.int64]]
    seen: list[NDArray[np.int64]]

    @property
    def sources(self) -> Sources:
        """The users' sources without whole words."""
        return Packer().sources(self.tokens, [np.zeros_like(each) for each in self.tokens])


def random_market(seed: int, *, num_users: int = 5, num_items: int = 30, likely_end: bool = False) -> Market:
    """A market; with `likely_end`, free text ends after a few tokens."""
    from transformers import T5Config, T5ForConditionalGeneration

    rng = np.random.default_rng(seed)
    sizes: dict[str, Any] = {
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 2,
    }
    config = T5Config(**{"vocab_size": VOCABULARY, "decoder_start_token_id": 0, **sizes})
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        theirs = T5ForConditionalGeneration(config).eval()
        if likely_end:
            theirs.shared.weight[END] *= 2
        ours = EncoderDecoder(EncoderDecoderShape(**sizes), VOCABULARY).eval()
        ours.load_state_dict({**from_t5_names(theirs.state_dict()), "whole_words.weight": torch.zeros(512, 16)})
    codes: set[tuple[int, ...]] = set()
    while len(codes) < num_items:
        codes.add((2, 3, *rng.integers(4, 9, rng.integers(1, 5)).tolist(), END))
    tokens = [np.append(rng.integers(2, VOCABULARY, rng.integers(3, 30)), END) for _ in range(num_users)]
    seen = [rng.integers(1, num_items + 1, rng.integers(0, 12)) for _ in range(num_users)]
    return Market(ours, theirs, [(), *sorted(codes, key=hash)], tokens, seen)
