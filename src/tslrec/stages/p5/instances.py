"""Which texts an epoch of P5 has, and which of them share a step.

Shapes: P prefixes, T tasks, B texts of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tslrec.data.batching import RandomBatches
from tslrec.settings.rivals import P5_TASKS
from tslrec.stages.p5.templates import ALL_TEMPLATES, NUM_SEEN, template_number

TEXT_STREAM = 21
"""Number of the random stream that draws an epoch's texts; with it go the seed, the epoch and the task."""


class Turns(NamedTuple):
    """The texts of a step.

    Attributes:
        prefixes_B: numbers of prefixes.
        templates_B: numbers of templates in `ALL_TEMPLATES`.
    """

    prefixes_B: NDArray[np.int64]
    templates_B: NDArray[np.int64]


class TaskBatches(RandomBatches):
    """Batches of texts, each of one task, the tasks in turn; see `RandomBatches` for how they are continued.

    Every task has the same prefixes, each with several templates. What does not fill the last batch of a task is filled
    up from the task's beginning. Seed and epoch alone decide.

    Args:
        num_prefixes: P, 1 or more.
        batch_size: B.
        seed: see `RandomBatches`.
        tasks: which, in the order of their turns.
        prompts: templates that are drawn for each prefix, with replacement; None: each seen template once.
        share: share of the prefixes that an epoch has, drawn anew for each task and epoch.
    """

    def __init__(
        self,
        num_prefixes: int,
        batch_size: int,
        seed: int,
        *,
        tasks: Sequence[str] = P5_TASKS,
        prompts: int | None = 3,
        share: float = 1.0,
    ) -> None:
        self.num_prefixes = num_prefixes
        self.tasks = tuple(tasks)
        self.prompts = prompts
        self.num_taken = max(1, round(share * num_prefixes))
        texts = self.num_taken * (NUM_SEEN if prompts is None else prompts)
        super().__init__(len(self.tasks) * -(-texts // batch_size) * batch_size, batch_size, seed)

    def order(self) -> NDArray[np.int64]:
        """The texts of the current epoch in their order, each as one number; see `turns`."""
        filled = self.num_instances // len(self.tasks)
        tasks = [np.resize(self.texts_of(task), filled).reshape(-1, self.batch_size) for task in self.tasks]
        return np.stack(tasks, axis=1).ravel()

    def texts_of(self, task: str) -> NDArray[np.int64]:
        """A task's texts of the current epoch, in a random order."""
        draw = np.random.default_rng([self.seed, self.epoch, TEXT_STREAM, P5_TASKS.index(task)])
        taken = np.arange(self.num_prefixes)
        if self.num_taken < self.num_prefixes:
            taken = draw.choice(self.num_prefixes, self.num_taken, replace=False)
        if self.prompts is None:
            places = np.tile(np.arange(NUM_SEEN), len(taken))
            prefixes = np.repeat(taken, NUM_SEEN)
        else:
            places = draw.integers(0, NUM_SEEN, len(taken) * self.prompts)
            prefixes = np.repeat(taken, self.prompts)
        texts: NDArray[np.int64] = draw.permutation(prefixes * len(ALL_TEMPLATES) + places + template_number(task, 0))
        return texts


def turns(texts_B: NDArray[np.int64]) -> Turns:
    """The prefix and the template of each text that `TaskBatches` gives out."""
    return Turns(*np.divmod(texts_B, len(ALL_TEMPLATES)))
