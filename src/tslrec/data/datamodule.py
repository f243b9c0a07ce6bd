"""The LightningDataModule of the stages that train a sequential recommender: backbone and fusion.

Shapes: B sequences, L positions, S (row, item) pairs of histories.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.batching import Batches, RandomBatches, rank_share
from tslrec.data.evaluated_users import evaluation_batches, sample_users, seen_items
from tslrec.data.interactions import TEST, VALIDATION, Interactions
from tslrec.data.masked_rows import MaskedRows, NumberedBatches
from tslrec.data.masking import Masking
from tslrec.data.packed_batch import packed_batch
from tslrec.data.packing import chunks_by_length, equal_chunks
from tslrec.data.sequence_batch import SequenceBatch, TrainingBatch
from tslrec.data.static_layouts import PackedLayout, PrefixLayout, StaticLayout, WindowLayout
from tslrec.data.step_groups import FlatItems, StepGroups, collate_group
from tslrec.data.windows import all_prefixes, all_windows, index_in_group
from tslrec.system.errors import UserError


class SequenceDataModule(lightning.LightningDataModule):
    """Batches of the users' training parts, and of their validation and test items (leave-one-out).

    Args:
        interactions: the data set.
        max_len: length of the input, in items: the last ones of the history.
        batch_size: training targets per optimizer step (on average, where all positions of a sequence train at once).
        eval_batch_size: users scored at a time.
        all_positions: train every position of a sequence in one pass, which needs a causal backbone; false: one
            prefix per instance.
        seed: determines the order of the training instances.
        packed: with `all_positions`, put several sequences into a row; the backbone must support it
            (`CausalBackbone.packs`).
        fixed_window: without `all_positions`, do not group prefixes by length, since the backbone computes `max_len`
            positions for each of them (`Backbone.fixed_window`).
        steps_per_epoch: optimizer steps per epoch; None: an epoch is one pass over the data.
        validation_users: number of users per validation, drawn at random once; None: all.
        test_users: the same for the test.
        steps_per_batch: optimizer steps in one batch of the trainer, as tensors of fixed shapes (`StepGroup`), for a
            single process; 1: a batch is a step (`TrainingBatch`). Masked rows have no such shapes.
        masking: train on masked items of whole training parts, in packed rows (`MaskedBackbone`), which `all_positions`
            does not change; None: on the next item.
        with_places: give each training target with its place in the flat array (`SequenceBatch.places`), for a training
            on the next item with `steps_per_batch` 1.

    Attributes:
        validated: ids of the users of a validation, ascending.
        tested: ids of the users of the test, ascending.

    Raises:
        UserError: if no user has two training items, so that there is nothing to train on.
    """

    def __init__(
        self,
        interactions: Interactions,
        *,
        max_len: int,
        batch_size: int,
        eval_batch_size: int,
        all_positions: bool,
        seed: int,
        packed: bool = False,
        fixed_window: bool = False,
        steps_per_epoch: int | None = None,
        validation_users: int | None = None,
        test_users: int | None = None,
        steps_per_batch: int = 1,
        masking: Masking | None = None,
        with_places: bool = False,
    ) -> None:
        super().__init__()
        self.interactions = interactions
        self.max_len = max_len
        self.eval_batch_size = eval_batch_size
        self.fixed_window = fixed_window
        self.all_positions = all_positions
        self.with_places = with_places
        assert not with_places or (masking is None and steps_per_batch == 1), "these targets have no places"
        self.validated = sample_users(interactions, validation_users)
        self.tested = sample_users(interactions, test_users)
        collate: Callable[..., TrainingBatch]
        if masking is not None:
            assert steps_per_batch == 1, "masked rows have no fixed shapes"
            masked = MaskedRows(interactions, masking, max_len=max_len, seed=seed)
            instances, collate = len(masked), masked.collate
            batch_size = masked.rows_per_step(batch_size)
        elif all_positions:
            self.windows = all_windows(interactions, max_len)
            instances, collate = len(self.windows), self.collate_rows if packed else self.collate_windows
            per_window = self.windows.num_targets / max(1, instances)
            batch_size = max(1, round(batch_size / max(1.0, per_window)))
        else:
            self.prefixes = all_prefixes(interactions, max_len)
            instances, collate = len(self.prefixes), self.collate_prefixes
        if instances == 0:
            raise UserError(f"{interactions.name}: no user has two training items; give data with longer histories")
        batches = RandomBatches if masking is None else NumberedBatches
        steps = batches(instances, batch_size, seed, steps_per_epoch)
        self.batches: Batches[Any] = Batches(steps, collate)
        if steps_per_batch > 1:
            layout = self.static_layout(batch_size, packed=packed)
            collate_steps = partial(collate_group, layout, FlatItems(interactions.items))
            self.batches = Batches(StepGroups(steps, steps_per_batch), collate_steps)

    def static_layout(self, size: int, *, packed: bool) -> StaticLayout:
        """How the steps become tensors of fixed shapes.

        Args:
            size: windows or prefixes of a step.
            packed: see the class.
        """
        if not self.all_positions:
            return PrefixLayout(self.prefixes, size, self.max_len, fixed_window=self.fixed_window)
        return (PackedLayout if packed else WindowLayout)(self.windows, size, self.max_len)

    def train_dataloader(self) -> Batches[Any]:
        """Batches of `TrainingBatch`, or of `StepGroup`."""
        return self.batches

    def val_dataloader(self) -> Batches[SequenceBatch]:
        return self.evaluation(VALIDATION)

    def test_dataloader(self) -> Batches[SequenceBatch]:
        return self.evaluation(TEST)

    def collate_prefixes(self, step: NDArray[np.int64]) -> TrainingBatch:
        """This rank's micro-batches of one step, each prefix with the item after it as its target.

        Args:
            step: indices into `self.prefixes`, over all ranks.
        """
        prefixes = self.prefixes
        indices, counted = rank_share(step)
        lengths = prefixes.ends[indices] - prefixes.starts[indices]
        parts = []
        for rows in equal_chunks(indices) if self.fixed_window else chunks_by_length(indices, lengths):
            starts, ends = prefixes.starts[rows], prefixes.ends[rows]
            targets_B = self.interactions.items[ends].astype(np.int64) * counted
            part = self.batch(prefixes.users[rows], starts, ends - starts, targets_B)
            parts.append(self.placed(part, ends))
        return TrainingBatch(tuple(parts), len(step))

    def collate_windows(self, step: NDArray[np.int64]) -> TrainingBatch:
        """This rank's micro-batches of one step, each position with the item after it as its target.

        Args:
            step: indices into `self.windows`, over all ranks.
        """
        windows = self.windows
        indices, counted = rank_share(step)
        parts = []
        for rows in chunks_by_length(indices, windows.lengths[indices]):
            starts, lengths = windows.starts[rows], windows.lengths[rows]
            targets_BL = self.padded(starts + 1, lengths) * counted
            column_L = np.arange(targets_BL.shape[1])
            targets_BL[column_L < windows.skipped[rows][:, None]] = 0
            part = self.batch(windows.users[rows], starts, lengths, targets_BL)
            parts.append(self.placed(part, starts[:, None] + 1 + column_L))
        return TrainingBatch(tuple(parts), int((windows.lengths[step] - windows.skipped[step]).sum()))

    def collate_rows(self, step: NDArray[np.int64]) -> TrainingBatch:
        """This rank's part of one step as a single micro-batch, with several windows to a row.

        Each position has the item after it as its target.

        Args:
            step: indices into `self.windows`, over all ranks.
        """
        windows = self.windows
        indices, counted = rank_share(step)
        starts, lengths, skipped = (each[indices] for each in (windows.starts, windows.lengths, windows.skipped))
        within = index_in_group(lengths)
        items, source = self.interactions.items, np.repeat(starts, lengths) + within
        targets = np.where(within >= np.repeat(skipped, lengths), items[source + 1], 0) * counted
        places = np.where(targets > 0, source + 1, 0) if self.with_places else None
        part = packed_batch(lengths, items[source], targets, self.max_len, places)
        return TrainingBatch((part,), int((windows.lengths[step] - windows.skipped[step]).sum()))

    def placed(self, part: SequenceBatch, places: NDArray[np.int64]) -> SequenceBatch:
        """A micro-batch with the places of its targets, if the training needs them.

        Args:
            part: the micro-batch.
            places: as `SequenceBatch.places`; those of targets that do not count mean nothing.
        """
        if not self.with_places:
            return part
        return part._replace(places=torch.from_numpy(places) * (part.targets > 0))

    def evaluation(self, held_out: int) -> Batches[SequenceBatch]:
        """This rank's batches of an evaluation; over all ranks each evaluated user occurs once.

        Args:
            held_out: the target's position from the end of the history, `TEST` or `VALIDATION`.
        """
        users = self.validated if held_out == VALIDATION else self.tested
        user_batches = evaluation_batches(self.interactions, users, self.eval_batch_size)
        return Batches(user_batches, lambda batch: self.collate_evaluation(batch, held_out))

    def collate_evaluation(self, users_B: NDArray[np.int64], held_out: int) -> SequenceBatch:
        """A batch of users: the last `max_len` items before the target as input, all items before it as history.

        Args:
            users_B: user ids; may be empty.
            held_out: see `evaluation`.
        """
        begins, ends = self.interactions.offsets[users_B], self.interactions.offsets[users_B + 1] - held_out
        starts = np.maximum(begins, ends - self.max_len)
        seen_rows, items_before = seen_items(self.interactions, begins, ends)
        return self.batch(
            users_B,
            starts,
            ends - starts,
            self.interactions.items[ends].astype(np.int64),
            seen_rows,
            items_before,
        )

    def batch(
        self,
        users_B: NDArray[np.int64],
        starts_B: NDArray[np.int64],
        lengths_B: NDArray[np.int64],
        targets: NDArray[np.int64],
        seen_rows: Tensor | None = None,
        seen_items: Tensor | None = None,
    ) -> SequenceBatch:
        """Builds a `SequenceBatch` whose inputs are ranges of the flat array.

        Args:
            users_B: user ids.
            starts_B: index of each sequence's first item in the flat array.
            lengths_B: number of its items.
            targets: see `SequenceBatch`.
            seen_rows: see `SequenceBatch`.
            seen_items: see `SequenceBatch`.
        """
        return SequenceBatch(
            torch.from_numpy(self.padded(starts_B, lengths_B)),
            torch.from_numpy(lengths_B),
            torch.from_numpy(users_B),
            torch.from_numpy(targets),
            seen_rows,
            seen_items,
        )

    def padded(self, starts_B: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `padded_ranges`."""
        return padded_ranges(self.interactions, starts_B, lengths_B)


def padded_ranges(
    interactions: Interactions, starts_B: NDArray[np.int64], lengths_B: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Ranges of the flat array as rows `[B, L]`, padded with 0 on the right."""
    column_L = np.arange(lengths_B.max(initial=0))
    index_BL = starts_B[:, None] + column_L
    inside_BL = column_L < lengths_B[:, None]
    items_BL = interactions.items[np.where(inside_BL, index_BL, 0)].astype(np.int64)
    return np.where(inside_BL, items_BL, 0)
