"""What both sides of P5's and POD's comparison train on: the same token ids, in a file that needs numpy alone.

Shapes: N tokens of all texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WARM_UP_STEPS = 2
"""Steps that are not timed."""

LEARNING_RATE = {"p5": 1e-3, "pod": 5e-4}
EPSILON = {"p5": 1e-6, "pod": 1e-8}
WEIGHT_DECAY, LARGEST_NORM = 0.01, 1.0
"""Of both sides: the authors' own. POD clips no gradients."""

PROMPT_VECTORS, NUM_TASKS = 3, 3
"""Of POD: vectors before each prompt, and tasks that have some."""

Ragged = list[NDArray[np.int64]]


class T5Batch(NamedTuple):
    """The texts of an optimizer step.

    Attributes:
        tokens: token ids of each source, `</s>` included.
        whole_words: as long, the word of each token; 0: none.
        targets: token ids of each target, `</s>` included.
        task: of POD, the task of all of them; 0 of P5.
    """

    tokens: Ragged
    whole_words: Ragged
    targets: Ragged
    task: int


class T5Case(NamedTuple):
    """What is trained on.

    Attributes:
        batches: of the steps, in order.
        vocabulary: number of token ids.
        sizes: the T5's, by the names of its config.json.
    """

    batches: list[T5Batch]
    vocabulary: int
    sizes: dict[str, int]


def save_case(case: T5Case, path: Path) -> None:
    """Writes the case as NPZ."""
    arrays: dict[str, Any] = {
        f"{name}_{kind}": value
        for name in ("tokens", "whole_words", "targets")
        for kind, value in flat([text for batch in case.batches for text in getattr(batch, name)]).items()
    }
    counts = [len(batch.tokens) for batch in case.batches]
    tasks = [batch.task for batch in case.batches]
    names, numbers = list(case.sizes), list(case.sizes.values())
    np.savez(path, **arrays, counts=counts, tasks=tasks, vocabulary=case.vocabulary, names=names, numbers=numbers)


def load_case(path: Path) -> T5Case:
    """Reads what `save_case` wrote."""
    with np.load(path) as file:
        parts = [
            split(file[f"{name}_values"], file[f"{name}_lengths"]) for name in ("tokens", "whole_words", "targets")
        ]
        batches, begin = [], 0
        for count, task in zip(file["counts"].tolist(), file["tasks"].tolist(), strict=True):
            tokens, whole_words, targets = (part[begin : begin + count] for part in parts)
            batches.append(T5Batch(tokens, whole_words, targets, task))
            begin += count
        sizes = dict(zip(file["names"].tolist(), file["numbers"].tolist(), strict=True))
        return T5Case(batches, int(file["vocabulary"]), sizes)


def flat(texts: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[np.int64]]:
    """Texts one after the other `[N]`, and their lengths."""
    return {"values": np.concatenate(texts), "lengths": np.array([len(text) for text in texts])}


def split(values_N: NDArray[np.int64], lengths: NDArray[np.int64]) -> Ragged:
    """The texts that lie one after the other."""
    return np.split(values_N, np.cumsum(lengths)[:-1])


def padded(texts: Ragged) -> NDArray[np.int64]:
    """Texts as rows, padded with 0 on the right."""
    rows = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
    for row, text in zip(rows, texts, strict=True):
        row[: len(text)] = text
    return rows


def repeated(batches: Sequence[T5Batch], steps: int) -> Iterator[T5Batch]:
    """The batches of so many steps after the warm-up, from the first one again where they end."""
    for step in range(WARM_UP_STEPS + steps):
        yield batches[step % len(batches)]


def parse_side(description: str | None, *, code: bool) -> argparse.Namespace:
    """Reads the command line of a side: `--case`, `--steps` and, where asked for, `--code`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--case", required=True, type=Path, metavar="FILE", help="what beside_rivals.py wrote")
    parser.add_argument("--steps", required=True, type=int, help="steps to time")
    if code:
        parser.add_argument("--code", required=True, type=Path, metavar="FOLDER", help="the authors' code")
    else:
        parser.add_argument("--method", required=True, choices=sorted(LEARNING_RATE))
    return parser.parse_args()
