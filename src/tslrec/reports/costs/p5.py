"""What P5 (Geng et al. 2022; OpenP5, Xu et al. 2024) gives its language model: every prefix by several templates.

Shapes: U users, P training texts, T tested users.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tslrec.data.windows import index_in_group
from tslrec.reports.costs.encoder_decoder import Texts
from tslrec.reports.costs.llamarec import evenly
from tslrec.settings.language_models import LoraConfig


@dataclass(frozen=True)
class P5Sizes:
    """The numbers that P5's work follows from; the defaults are OpenP5's for Beauty.

    Attributes:
        code_tokens: tokens of an item's code.
        user_tokens: tokens of `user_7`.
        template_tokens: words of a template beside its fields; a mean.
        history: items of a history.
        prompts: texts of each instance, task and epoch.
        tasks: number of tasks; all but the first, the sequential one, show no history.
        beams: of the search for a list.
        batch_size: texts per optimizer step.
        epochs: epochs.
        share: share of the instances in an epoch.
        longest: tokens of an input at most.
        lora: the adapter of the decoder-only form; one of the same rank adapts the table of tokens.
    """

    code_tokens: int
    user_tokens: int
    template_tokens: int = 16
    history: int = 20
    prompts: int = 3
    tasks: int = 2
    beams: int = 10
    batch_size: int = 64
    epochs: int = 20
    share: float = 1.0
    longest: int = 512
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(8, 16, 0.05, ["q_proj", "v_proj"]))

    @property
    def item_tokens(self) -> int:
        """Tokens of an item in a history: `item`, `_`, its code and a comma."""
        return 3 + self.code_tokens

    @property
    def target_tokens(self) -> int:
        """Tokens of an answer: the data set's name, `item`, `_`, the code and the end."""
        return 4 + self.code_tokens


def code_length(num_items: int, clusters: int, largest: int) -> int:
    """Tokens of a code of the collaborative index, if all groups of a split are equally large; it always splits once.

    Args:
        num_items: I.
        clusters: groups of a split, two or more.
        largest: items of a group that is not split further.
    """
    splits = 1
    while num_items > largest * clusters**splits:
        splits += 1
    return splits + 1


def training_texts(train_lengths_U: NDArray[np.int64], sizes: P5Sizes) -> list[Texts]:
    """The texts of an epoch, by task: one instance per item but each user's first, each by several templates.

    Of a share of the instances, those that are spread evenly over the data.
    """
    shown_P = np.repeat(evenly(1 + index_in_group(train_lengths_U - 1), sizes.share), sizes.prompts)
    without = [np.zeros_like(shown_P)] * (sizes.tasks - 1)
    return [texts_of(shown, sizes) for shown in (shown_P, *without)]


def tested_texts(train_lengths_U: NDArray[np.int64], sizes: P5Sizes) -> Texts:
    """The texts of the test: a user's last items, the validation item included."""
    return texts_of(train_lengths_U + 1, sizes)


def texts_of(shown: NDArray[np.int64], sizes: P5Sizes) -> Texts:
    """Texts that show so many items: template, data set, user, history, end."""
    items = np.minimum(shown, sizes.history)
    sources = np.minimum(sizes.template_tokens + 2 + sizes.user_tokens + items * sizes.item_tokens, sizes.longest)
    return Texts(sources.astype(np.int64), np.full(len(shown), sizes.target_tokens, dtype=np.int64))


def assumptions(sizes: P5Sizes) -> tuple[str, ...]:
    """What the counts take for granted."""
    return (
        f"{sizes.code_tokens} tokens an item's code, {sizes.user_tokens} a user, "
        f"{sizes.template_tokens} words a template",
    )
