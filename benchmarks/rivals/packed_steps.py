"""A training step of ours beside a padded one of transformers' T5, as P5's and POD's public code runs it, in turn.

Both compute loss and gradients of the same sources (texts of users' prefixes) and targets. Prints seconds of the
process's CPU time per step, which a busy machine disturbs least: `python benchmarks/rivals/packed_steps.py`. Without
dropout it checks that the losses are equal.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from beams import CONFIGS, INDEX_TOKENS, WORDS, equal_models, histories
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from tslrec.llm.encoder_decoder.packing import Packer
from tslrec.llm.encoder_decoder.shape import END, PADDING

Examples = tuple[list[NDArray[np.int64]], list[NDArray[np.int64]], list[NDArray[np.int64]]]


def main(words: Sequence[str]) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="laptop", choices=sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args(words)
    rng = np.random.default_rng(0)
    theirs, ours = equal_models(given.sizes)
    batches = [examples(given.batch, rng) for _ in range(given.steps)]
    with torch.no_grad():
        difference = abs(their_loss(theirs, batches[0]) - ours(Packer()(*batches[0])))
    print(f"steps_{given.sizes}_loss_difference {float(difference):.1e}")
    theirs.train()
    ours.train()
    seconds: dict[str, list[float]] = {"transformers": [], "ours": []}
    shares = []
    for batch in batches:
        for side, model in (("transformers", theirs), ("ours", ours)):
            start = time.process_time()
            loss = their_loss(model, batch) if side == "transformers" else model(Packer()(*batch))
            loss.backward()
            seconds[side].append(time.process_time() - start)
            model.zero_grad()
        lengths = [len(each) for each in batch[0]]
        shares.append(len(lengths) * max(lengths) / Packer().sources(*batch[:2]).num_tokens)
    for side, each in seconds.items():
        print(f"steps_{given.sizes}_{side} {median(each):.3f} s/step")
    ratio = median(their / our for their, our in zip(*seconds.values(), strict=True))
    print(f"steps_{given.sizes}_ratio {ratio:.2f} x")
    print(f"steps_{given.sizes}_token_ratio {median(shares):.2f} x")


def examples(number: int, rng: np.random.Generator) -> Examples:
    """Texts of about 20 tokens and 7 for each item of the history, and targets like items' names."""
    lengths = 20 + rng.integers(0, 6, number) + 7 * histories(number, rng)
    tokens = [np.append(rng.integers(2, WORDS, length - 1), END) for length in lengths]
    targets = [np.append(rng.integers(2, WORDS + INDEX_TOKENS, rng.integers(5, 8)), END) for _ in range(number)]
    return tokens, [np.zeros_like(each) for each in tokens], targets


def their_loss(model: Any, batch: Examples) -> torch.Tensor:
    """P5's loss on padded rows."""
    sources = pad_sequence([torch.from_numpy(each) for each in batch[0]], batch_first=True, padding_value=PADDING)
    labels = pad_sequence([torch.from_numpy(each) for each in batch[2]], batch_first=True, padding_value=-100)
    logits = model(input_ids=sources, attention_mask=(sources != PADDING).long(), labels=labels).logits
    loss_BT = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    return (loss_BT.sum(dim=1) / (labels != -100).sum(dim=1)).mean()


if __name__ == "__main__":
    main(sys.argv[1:])
