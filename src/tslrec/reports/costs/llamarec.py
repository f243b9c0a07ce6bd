"""What LlamaRec (Yue et al. 2023) gives its language model: a prompt per training prefix, with 20 titled candidates.

Shapes: U users, P training prefixes, T tested users whose target was retrieved.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tslrec.data.windows import index_in_group
from tslrec.llm.shape import Shape
from tslrec.settings.language_models import LoraConfig


@dataclass(frozen=True)
class LlamaRecSizes:
    """The numbers that LlamaRec's work follows from; the defaults are its authors' for Beauty.

    Attributes:
        title_tokens: mean tokens of a title, after those beyond the longest are cut off.
        mark_tokens: tokens around a title: ` (1) ` before it and the separator behind it.
        instruction_tokens: tokens of the instruction and the headings before the history.
        answer_tokens: tokens of the heading before the answer.
        history: items of a history.
        candidates: items that are ranked.
        longest: tokens of a prompt at most.
        batch_size: instances per optimizer step.
        at_once: tokens of a step in one pass.
        epochs: passes over the instances.
        share: share of the instances that is trained on.
        lora: the adapter.
        titles: how the tokens of a title are known.
    """

    title_tokens: float
    mark_tokens: int = 5
    instruction_tokens: int = 60
    answer_tokens: int = 8
    history: int = 20
    candidates: int = 20
    longest: int = 1536
    batch_size: int = 12
    at_once: int = 4096
    epochs: int = 1
    share: float = 1.0
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(8, 32, 0.05, ["q_proj", "v_proj"]))
    titles: str = "assumed"

    @property
    def prompt(self) -> tuple[int, int]:
        """Tokens of the instruction, and of what follows the candidates: heading, letter and end."""
        return self.instruction_tokens, self.answer_tokens + 2


def training_lengths(train_lengths_U: NDArray[np.int64], sizes: LlamaRecSizes) -> NDArray[np.int64]:
    """Tokens of history and candidates of each training instance, int64 `[P]`: one per item but each user's first.

    Of a share of them, those that are spread evenly over the data.
    """
    shown_P = evenly(1 + index_in_group(train_lengths_U - 1), sizes.share)
    return middle(shown_P, sizes)


def tested_lengths(train_lengths_U: NDArray[np.int64], sizes: LlamaRecSizes, retrieved: float) -> NDArray[np.int64]:
    """The same of the users that the test ranks, int64 `[T]`: only where the retriever found the target.

    Args:
        train_lengths_U: length of each user's training part.
        sizes: see `LlamaRecSizes`.
        retrieved: share of the users whose target is among the candidates. The users are spread evenly over the data.
    """
    # At the test the validation item is part of the history.
    return middle(evenly(train_lengths_U, retrieved) + 1, sizes)


def evenly(values: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    """A share of values `[N]`, spread evenly over them, at least one where there is one and the share is not zero."""
    if share >= 1:
        return values
    count = max(min(1, len(values)) if share > 0 else 0, round(share * len(values)))
    return values[np.linspace(0, len(values) - 1, count).round().astype(np.int64)]


def middle(shown: NDArray[np.int64], sizes: LlamaRecSizes) -> NDArray[np.int64]:
    """Tokens between instruction and answer, where so many items are in the history."""
    items = np.minimum(shown, sizes.history) + sizes.candidates
    tokens = np.rint(items * (sizes.title_tokens + sizes.mark_tokens)).astype(np.int64)
    return np.minimum(tokens, sizes.longest - sum(sizes.prompt))


def head_flops(shape: Shape, examples: int, *, training: bool) -> float:
    """Operations of the logits that are read: of the letter and the end in training, of the letter in the test.

    The head is frozen, so the backward pass costs as much as the forward pass.
    """
    return 2.0 * shape.vocab_size * shape.hidden_size * examples * (4 if training else 1)
