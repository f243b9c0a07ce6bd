"""POD's batches: prompts of one task per optimizer step, and bare prompts in validation and test.

Shapes: B samples, U users, S (user, item) pairs of histories.
"""

from __future__ import annotations

from typing import NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.batching import Batches, rank_share
from tslrec.data.evaluated_users import evaluation_batches, sample_users, seen_items
from tslrec.data.interactions import TEST, VALIDATION, Interactions
from tslrec.settings.rivals import PODConfig
from tslrec.stages.pod.numbering import Numbering, clean_numbering, released_numbering
from tslrec.stages.pod.pieces import Prompts, PromptWriter
from tslrec.stages.pod.rotation import Rotation, Turn
from tslrec.stages.pod.samples import Candidates, segments
from tslrec.stages.pod.templates import SEQUENTIAL, TASKS, TEMPLATES, TOP_N
from tslrec.system.errors import UserError

BARE_TEMPLATE = -1
"""Number of the bare template of every task."""

LONGEST_TARGET = 20
"""Tokens of a target in training; the rest is cut off (lileipisces/POD fd31697)."""

STEP_STREAM, VALIDATION_STREAM = 13, 14
"""Numbers of the random streams that draw a step's samples, and the candidates of a validation."""


class PromptBatch(NamedTuple):
    """Prompts of one task with their targets; this process's share.

    Attributes:
        task: one of `TASKS`.
        prompts: without prompt vectors.
        targets: the tokens of each, `</s>` included.
        counted: False on a rank without samples of its own: it runs a duplicate, because every rank must take part in
            the step, and the result is discarded.
        num_samples: samples of the step, over all processes.
        num_labels: tokens of their targets.
    """

    task: int
    prompts: Prompts
    targets: list[NDArray[np.int64]]
    counted: bool
    num_samples: int
    num_labels: int


class TestedUsers(NamedTuple):
    """Bare prompts of the sequential task for users whose lists are generated.

    Attributes:
        samples: of the users.
        users_B: int64, rows of the users in the data set.
        targets_B: int64, item ids.
        seen_rows_S: int64, with `seen_items_S` the items that each user had before the target: rows of this batch.
        seen_items_S: int64, item ids.
    """

    samples: PromptBatch
    users_B: Tensor
    targets_B: Tensor
    seen_rows_S: Tensor
    seen_items_S: Tensor


class PODDataModule(lightning.LightningDataModule):
    """Training steps of the sequential and the top-N task in turn, and the users of validation and test.

    Args:
        interactions: the data set.
        writer: writes prompts, with the numbers of `numbering_of`.
        numbers: of the method.
        seed: decides the order of users and all draws.
        validation_users: number of users per validation, drawn at random once; None: all.
        test_users: the same for the test.

    Attributes:
        rotation: the training's steps.
        validated: rows of the users of a validation.
        tested: rows of the users of the test.

    Raises:
        UserError: if no user has two training items, or none is evaluated.
    """

    def __init__(
        self,
        interactions: Interactions,
        writer: PromptWriter,
        numbers: PODConfig,
        seed: int,
        *,
        validation_users: int | None = None,
        test_users: int | None = None,
    ) -> None:
        super().__init__()
        self.interactions = interactions
        self.writer = writer
        self.numbers = numbers
        self.seed = seed
        self.candidates = Candidates(interactions, numbers.candidates, knows_held_out=numbers.released)
        two = np.flatnonzero(interactions.train_lengths >= 2)
        if len(two) == 0:
            raise UserError(f"{interactions.name}: no user has two training items; give data with longer histories")
        self.validated = sample_users(interactions, validation_users)
        self.tested = sample_users(interactions, test_users)
        if len(self.tested) == 0:
            raise UserError(f"{interactions.name}: no user has a validation and a test item; give longer histories")
        self.rotation = Rotation(
            {SEQUENTIAL: two, TOP_N: np.arange(interactions.num_users)},
            numbers.batch_size,
            seed,
            steps_per_epoch=numbers.steps_per_epoch,
            shuffle_first=not numbers.released,
        )
        self.batches = Batches(self.rotation, self.collate)

    def train_dataloader(self) -> Batches[PromptBatch]:
        return self.batches

    def val_dataloader(self) -> Batches[PromptBatch]:
        """The validation items of both tasks, the sequential one's first; every process has as many batches."""
        return Batches(self.validation_turns(), self.collate_validation)  # type: ignore[arg-type]

    def validation_turns(self) -> list[Turn]:
        """This process's batches of a validation."""
        splits = evaluation_batches(self.interactions, self.validated, self.numbers.eval_batch_size)
        return [Turn(task, 0, users_B) for task in TASKS for users_B in splits]

    def test_dataloader(self) -> Batches[TestedUsers | None]:
        """The users whose lists are generated, by the sequential task; None for a batch without users."""
        splits = evaluation_batches(self.interactions, self.tested, self.numbers.eval_batch_size)
        return Batches(splits, lambda users_B: self.collate_test(users_B, TEST))

    def collate(self, turn: Turn) -> PromptBatch:
        """This process's share of a training step."""
        draw = np.random.default_rng([self.seed, STEP_STREAM, turn.number])
        templates = draw.integers(len(TEMPLATES[turn.task]), size=len(turn.users))
        items = self.interactions.items
        begins, lengths = self.interactions.offsets[turn.users], self.interactions.train_lengths[turn.users]
        if turn.task == SEQUENTIAL:
            starts, ends = segments(lengths, self.numbers.history, draw)
            targets = items[begins + ends].astype(np.int64)
            shown = self.histories(begins + starts, begins + ends)
        else:
            targets = items[begins + draw.integers(0, lengths)].astype(np.int64)
            shown = [
                self.candidates.draw(user, right, draw)
                for user, right in zip(turn.users.tolist(), targets.tolist(), strict=True)
            ]
        # Every process draws for all samples, so that how many there are changes none of them.
        mine, counted = rank_share(np.arange(len(turn.users)))
        return self.batch(
            turn.task, turn.users[mine], [shown[each] for each in mine], targets[mine], templates[mine], counted,
            targets,
        )  # fmt: skip

    def collate_validation(self, turn: Turn) -> PromptBatch:
        """This process's users of a validation batch, in bare prompts; a duplicate that does not count for none."""
        counted = len(turn.users) > 0
        users_B = turn.users if counted else self.validated[:1]
        ends_B = self.interactions.offsets[users_B + 1] - VALIDATION
        targets_B = self.interactions.items[ends_B].astype(np.int64)
        if turn.task == SEQUENTIAL:
            shown = self.last_items(users_B, ends_B)
        else:
            shown = [
                self.candidates.draw(user, right, np.random.default_rng([self.seed, VALIDATION_STREAM, user]))
                for user, right in zip(users_B.tolist(), targets_B.tolist(), strict=True)
            ]
        bare = np.full(len(users_B), BARE_TEMPLATE)
        return self.batch(turn.task, users_B, shown, targets_B, bare, counted, targets_B)

    def collate_test(self, users_B: NDArray[np.int64], held_out: int) -> TestedUsers | None:
        """This process's users of a test batch, `[B]`, in bare prompts; None if there are none.

        Args:
            users_B: rows of the users in the data set.
            held_out: the target's position from the end of the history, `TEST` or `VALIDATION`.
        """
        if len(users_B) == 0:
            return None
        begins_B, ends_B = self.interactions.offsets[users_B], self.interactions.offsets[users_B + 1] - held_out
        targets_B = self.interactions.items[ends_B].astype(np.int64)
        bare = np.full(len(users_B), BARE_TEMPLATE)
        samples = self.batch(SEQUENTIAL, users_B, self.last_items(users_B, ends_B), targets_B, bare, True, targets_B)
        pairs = seen_items(self.interactions, begins_B, ends_B)
        return TestedUsers(samples, torch.from_numpy(users_B), torch.from_numpy(targets_B), *pairs)

    def batch(
        self,
        task: int,
        users_B: NDArray[np.int64],
        shown: list[NDArray[np.int64]],
        targets_B: NDArray[np.int64],
        templates_B: NDArray[np.int64],
        counted: bool,
        everyones: NDArray[np.int64],
    ) -> PromptBatch:
        """Writes the prompts and targets of a batch.

        Args:
            task: one of `TASKS`.
            users_B: rows of the users in the data set.
            shown: item ids of each prompt.
            targets_B: item ids.
            templates_B: number of each prompt's template.
            counted: see `PromptBatch`.
            everyones: the targets of all processes.
        """
        prompts = self.writer.prompts(task, users_B.tolist(), shown, templates_B.tolist())
        written, _ = self.writer.labels(targets_B).rows()
        return PromptBatch(
            task,
            prompts,
            [target[:LONGEST_TARGET] for target in written],
            counted,
            len(everyones),
            int(np.minimum(self.writer.label_lengths(everyones), LONGEST_TARGET).sum()),
        )

    def last_items(self, users_B: NDArray[np.int64], ends_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The last items before `ends_B`, an index into the flat array, as many as a prompt shows."""
        return self.histories(np.maximum(self.interactions.offsets[users_B], ends_B - self.numbers.history), ends_B)

    def histories(self, starts_B: NDArray[np.int64], ends_B: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Item ids from `starts_B` up to but not including `ends_B` in the flat array."""
        items = self.interactions.items
        return [items[start:end].astype(np.int64) for start, end in zip(starts_B, ends_B, strict=True)]


def numbering_of(interactions: Interactions, numbers: PODConfig, seed: int) -> Numbering:
    """The numbers of users and items in prompts.

    Args:
        interactions: the data set.
        numbers: of the method.
        seed: see `clean_numbering`.
    """
    return released_numbering(interactions) if numbers.released else clean_numbering(interactions, seed)
