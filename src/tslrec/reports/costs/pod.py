"""What POD (Li et al. 2023) gives its language model: random segments, and items to choose from, in turn.

Shapes: U users, B samples of an epoch, T tested users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.reports.costs.encoder_decoder import Texts
from tslrec.stages.pod.samples import segments
from tslrec.stages.pod.templates import ITEMS, NUM_TASKS, SEQUENTIAL, TEMPLATES, TOP_N, USER

DIGITS_PER_TOKEN = 2
"""Digits of a number that share a token, as in the vocabulary that is used without a real T5."""


@dataclass(frozen=True)
class PODSizes:
    """The numbers that POD's work follows from; the defaults are its authors'.

    Attributes:
        user_number_tokens: mean tokens of a user's number.
        item_number_tokens: mean tokens of an item's number.
        prompt_vectors: vectors before each prompt.
        history: items of a history.
        candidates: items to choose from.
        beams: of the search for a list.
        batch_size: samples per optimizer step.
        epochs: epochs at most; most of the released runs stopped after 22 to 24.
        steps_per_epoch: optimizer steps of an epoch; None: as many as one pass of both tasks has.
    """

    user_number_tokens: float
    item_number_tokens: float
    prompt_vectors: int = 3
    history: int = 20
    candidates: int = 100
    beams: int = 20
    batch_size: int = 64
    epochs: int = 100
    steps_per_epoch: int | None = None

    @property
    def prompt_rows(self) -> int:
        """Rows of the table of prompt vectors, that of the explanations included."""
        return NUM_TASKS * self.prompt_vectors


def number_tokens(count: int, first: int = 1) -> float:
    """Mean tokens of as many numbers in a row as `count`, from `first` on."""
    digits = np.char.str_len(np.arange(first, first + count).astype(str))
    return float(np.ceil(digits / DIGITS_PER_TOKEN).mean())


def template_words(task: int) -> float:
    """Mean number of a task's template words beside the fields; a word is a token, as is punctuation."""
    fields = {USER, ITEMS}
    return float(np.mean([sum(word not in fields for word in text.split()) for text in TEMPLATES[task]]))


def epoch_steps(train_lengths_U: NDArray[np.int64], batch_size: int) -> int:
    """Optimizer steps of an epoch: as many full batches as one pass of both tasks has, one at least."""
    sequential = int((train_lengths_U >= 2).sum())
    return max(1, sequential // batch_size + len(train_lengths_U) // batch_size)


def training_texts(train_lengths_U: NDArray[np.int64], sizes: PODSizes, seed: int) -> list[Texts]:
    """The texts of an epoch, by task; the lengths of the segments are drawn as in training.

    Args:
        train_lengths_U: length of each user's training part.
        sizes: see `PODSizes`.
        seed: of the draw.
    """
    steps = sizes.steps_per_epoch or epoch_steps(train_lengths_U, sizes.batch_size)
    two_U = train_lengths_U[train_lengths_U >= 2]
    samples = -(-steps // 2) * sizes.batch_size, steps // 2 * sizes.batch_size
    begins_B, targets_B = segments(np.resize(two_U, samples[0]), sizes.history, np.random.default_rng(seed))
    choices_B = np.full(samples[1], sizes.candidates)
    return [
        texts_of(targets_B - begins_B, template_words(SEQUENTIAL), sizes),
        texts_of(choices_B, template_words(TOP_N), sizes),
    ]


def tested_texts(train_lengths_U: NDArray[np.int64], sizes: PODSizes) -> Texts:
    """The bare prompts of the test: a user's last items, the validation item included."""
    return texts_of(np.minimum(train_lengths_U + 1, sizes.history), 0.0, sizes)


def texts_of(shown: NDArray[np.int64], words: float, sizes: PODSizes) -> Texts:
    """Texts of so many items: prompt vectors, template words, user, items, end; a name is two tokens and its number."""
    names = 2 + sizes.user_number_tokens + shown * (2 + sizes.item_number_tokens)
    sources = np.rint(sizes.prompt_vectors + words + names + 1).astype(np.int64)
    return Texts(sources, np.full(len(shown), target_tokens(sizes), dtype=np.int64))


def target_tokens(sizes: PODSizes) -> int:
    """Tokens of a target: the item's number, rounded up, and the end."""
    return int(np.ceil(sizes.item_number_tokens)) + 1
