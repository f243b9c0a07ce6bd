"""P5's batches: texts of one task per optimizer step, and one input per user in validation and test.

Shapes: B texts or users, L (user, item) pairs of histories.
"""

from __future__ import annotations

from typing import NamedTuple

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.batching import Batches, rank_share
from tslrec.data.evaluated_users import evaluation_batches, seen_items
from tslrec.data.interactions import TEST, VALIDATION, Interactions
from tslrec.data.windows import all_prefixes
from tslrec.settings.rivals import P5Config
from tslrec.stages.p5.instances import TaskBatches, turns
from tslrec.stages.p5.pieces import Encoded
from tslrec.stages.p5.templates import EVALUATED, SEEN
from tslrec.stages.p5.texts import TextWriter
from tslrec.system.errors import UserError


class TextBatch(NamedTuple):
    """This process's share of the texts of one optimizer step.

    Attributes:
        inputs: what is read, with an ending.
        outputs: what is written, with an ending.
        counted: False on a rank without texts of its own: it runs a duplicate, because every rank must take part in
            the step, and the result is discarded.
        num_texts: texts of the step, over all processes.
        num_labels: tokens of their outputs.
    """

    inputs: Encoded
    outputs: Encoded
    counted: bool
    num_texts: int
    num_labels: int


class AskedUsers(NamedTuple):
    """Users whose lists are generated.

    Attributes:
        inputs: one per user.
        users_B: int64, rows of the users in the data set.
        targets_B: int64, item ids to find.
        seen_rows_L: int64, index in this batch of the user of each pair. With `seen_items_L` it gives every item of the
            users' histories before the target.
        seen_items_L: int64, item id of each pair.
        counted: False on a rank without users of its own: it runs a duplicate; the result is discarded.
    """

    inputs: Encoded
    users_B: Tensor
    targets_B: Tensor
    seen_rows_L: Tensor
    seen_items_L: Tensor
    counted: bool


class TextDataModule(lightning.LightningDataModule):
    """Training batches of texts, and validation and test batches of users.

    Args:
        interactions: the data set.
        writer: writes the texts.
        numbers: P5's settings.
        seed: decides which texts share a step.

    Attributes:
        prefixes: the training instances: every prefix of every training part, with the item after it.
        batches: of the training.

    Raises:
        UserError: if no user has two items to train on, or inputs have no room for a token.
    """

    def __init__(self, interactions: Interactions, writer: TextWriter, numbers: P5Config, seed: int) -> None:
        super().__init__()
        self.interactions = interactions
        self.writer = writer
        self.numbers = numbers
        self.prefixes = all_prefixes(interactions, numbers.max_history)
        if len(self.prefixes) == 0:
            raise UserError(f"data={interactions.name}: P5 needs a user with two items to train on; give more data")
        least = len(writer.table.ending) + 1
        if numbers.max_tokens < least:
            raise UserError(f"p5.max_tokens={numbers.max_tokens}: no room for a text; set it to {least} or more")
        order = TaskBatches(
            len(self.prefixes),
            numbers.batch_size,
            seed,
            tasks=numbers.tasks,
            prompts=numbers.prompts,
            share=numbers.share,
        )
        self.batches = Batches(order, self.collate)

    def train_dataloader(self) -> Batches[TextBatch]:
        return self.batches

    def val_dataloader(self) -> Batches[AskedUsers]:
        return self.evaluation(VALIDATION)

    def test_dataloader(self) -> Batches[AskedUsers]:
        return self.evaluation(TEST)

    def collate(self, texts_B: NDArray[np.int64]) -> TextBatch:
        """This process's share of one batch of texts `[B]` (see `TaskBatches`)."""
        mine_B, counted = rank_share(texts_B)
        chosen_B, templates_B = turns(mine_B)
        ends_B = self.prefixes.ends[chosen_B]
        items = self.interactions.items
        inputs = self.writer.inputs(
            templates_B,
            self.prefixes.users[chosen_B],
            self.prefixes.starts[chosen_B],
            ends_B,
            items,
            self.numbers.max_tokens,
        )
        outputs = self.writer.labels(items[ends_B])
        of_all = int(self.writer.label_lengths(items[self.prefixes.ends[turns(texts_B).prefixes_B]]).sum())
        return TextBatch(inputs, outputs, counted, len(texts_B), of_all)

    def evaluation(
        self, held_out: int, template: str = SEEN, users: NDArray[np.int64] | None = None
    ) -> Batches[AskedUsers]:
        """Batches of the users that every recommender is evaluated on, in the same order.

        Args:
            held_out: the target's position from the end of the history, `TEST` or `VALIDATION`.
            template: `SEEN` or `UNSEEN`.
            users: rows of some of these users; None: all.
        """
        number = EVALUATED[template]
        users = self.interactions.evaluated_users if users is None else users
        splits = evaluation_batches(self.interactions, users, self.numbers.eval_batch_size)
        return Batches(splits, lambda users_B: self.collate_evaluation(users_B, held_out, number))

    def collate_evaluation(self, users_B: NDArray[np.int64], held_out: int, template: int) -> AskedUsers:
        """This process's users `[B]` as a batch.

        Args:
            users_B: rows of the users; may be empty.
            held_out: see `evaluation`.
            template: its number in `ALL_TEMPLATES`.
        """
        counted = len(users_B) > 0
        if not counted:
            users_B = self.interactions.evaluated_users[:1]
        begins_B, ends_B = self.interactions.offsets[users_B], self.interactions.offsets[users_B + 1] - held_out
        starts_B = np.maximum(begins_B, ends_B - self.numbers.max_history)
        items = self.interactions.items
        inputs = self.writer.inputs(
            np.full(len(users_B), template), users_B, starts_B, ends_B, items, self.numbers.max_tokens
        )
        targets_B = torch.from_numpy(items[ends_B].astype(np.int64))
        seen_rows_L, seen_items_L = seen_items(self.interactions, begins_B, ends_B)
        return AskedUsers(inputs, torch.from_numpy(users_B), targets_B, seen_rows_L, seen_items_L, counted)
