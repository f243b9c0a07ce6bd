"""The LightningDataModule of everything that predicts a next item: the backbone and the fusion stages.

Shapes: B sequences, L positions, S (row, item) pairs of histories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.backbones.base import Packing
from tslrec.errors import UserError
from tslrec.interactions import Interactions
from tslrec.ranks import process_place
from tslrec.rows import by_length, in_turn, side_by_side
from tslrec.sampling import RandomBatches, own_share
from tslrec.windows import all_prefixes, all_windows, place_in_group

T = TypeVar("T")

SAMPLE_SEED = 0
"""Of the users that stand for all in an evaluation: the data alone decide, so all methods and seeds see the same."""


class SequenceBatch(NamedTuple):
    """Sequences that are run together.

    Attributes:
        items_BL: int64, padded with 0 on the right.
        lengths_B: int64, 1 or more.
        users_B: int64.
        targets: int64; `[B]`, the item after each sequence, or `[B, L]`, the item after each position; 0 where none
            is counted.
        seen_rows: int64 `[S]`, not decreasing; with `seen_items` each user's whole history before the target.
            None in training.
        seen_items: int64 `[S]`.
        packing: what is where, where a row holds several sequences; lengths and users then mean nothing.
    """

    items_BL: Tensor
    lengths_B: Tensor
    users_B: Tensor
    targets: Tensor
    seen_rows: Tensor | None = None
    seen_items: Tensor | None = None
    packing: Packing | None = None

    def cut(self, count: int) -> list[SequenceBatch]:
        """Prefixes that train in so many parts of about equal size, in order; some are empty where all are few."""
        whole = (self.items_BL, self.lengths_B, self.users_B, self.targets)
        return [SequenceBatch(*part) for part in zip(*(each.tensor_split(count) for each in whole), strict=True)]


class TrainingBatch(NamedTuple):
    """One optimizer step.

    Attributes:
        parts: the micro-batches of this process, run one after the other.
        num_targets: of the step, over all processes.
    """

    parts: tuple[SequenceBatch, ...]
    num_targets: int


class Batches(Generic[T]):
    """What Lightning iterates over: index batches, each turned into tensors when it is asked for."""

    def __init__(self, indices: Sequence[NDArray[np.int64]] | RandomBatches, collate: Callable[..., T]) -> None:
        self.indices = indices
        self.collate = collate

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[T]:
        for batch in self.indices:
            yield self.collate(batch)

    def state_dict(self) -> dict[str, Any]:
        return self.indices.state_dict() if isinstance(self.indices, RandomBatches) else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if isinstance(self.indices, RandomBatches):
            self.indices.load_state_dict(state)


class SequenceDataModule(lightning.LightningDataModule):
    """Training instances of the training part, and leave-one-out evaluation.

    Args:
        interactions: the data set.
        max_len: how many of the last items a model sees.
        batch_size: training targets of an optimizer step; on average, where all positions train at once.
        eval_batch_size: users scored at a time.
        all_positions: train every position of a sequence in one pass (causal backbones), or one prefix at a time.
        packed: where all positions train, put several sequences into a row (backbones that pack).
        fixed_window: where prefixes train, do not group them by length (backbones whose window is fixed).
        seed: decides the order of training.
        steps_per_epoch: see `RandomBatches`.
        validation_users: how many users, drawn at random, stand for all in a validation; None takes all.
        test_users: the same of the test.

    Raises:
        UserError: if there is nothing to train on.
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
    ) -> None:
        super().__init__()
        self.interactions = interactions
        self.max_len = max_len
        self.eval_batch_size = eval_batch_size
        self.fixed_window = fixed_window
        self.validated = sample_users(interactions, validation_users)
        self.tested = sample_users(interactions, test_users)
        collate: Callable[..., TrainingBatch]
        if all_positions:
            self.windows = all_windows(interactions, max_len)
            instances, collate = len(self.windows), self.collate_rows if packed else self.collate_windows
            per_window = self.windows.num_targets / max(1, instances)
            batch_size = max(1, round(batch_size / max(1.0, per_window)))
        else:
            self.prefixes = all_prefixes(interactions, max_len)
            instances, collate = len(self.prefixes), self.collate_prefixes
        if instances == 0:
            raise UserError(f"{interactions.name}: no user has two training items; give data with longer histories")
        self.batches = Batches(RandomBatches(instances, batch_size, seed, steps_per_epoch), collate)

    def train_dataloader(self) -> Batches[TrainingBatch]:
        return self.batches

    def val_dataloader(self) -> Batches[SequenceBatch]:
        return self.evaluation(held_out=2)

    def test_dataloader(self) -> Batches[SequenceBatch]:
        return self.evaluation(held_out=1)

    def collate_prefixes(self, step: NDArray[np.int64]) -> TrainingBatch:
        """The micro-batches of one step, with the target after each prefix."""
        prefixes = self.prefixes
        indices, counted = own_share(step)
        lengths = prefixes.ends[indices] - prefixes.starts[indices]
        parts = []
        for rows in in_turn(indices) if self.fixed_window else by_length(indices, lengths):
            starts, ends = prefixes.starts[rows], prefixes.ends[rows]
            targets_B = self.interactions.items[ends].astype(np.int64) * counted
            parts.append(self.batch(prefixes.users[rows], starts, ends - starts, targets_B))
        return TrainingBatch(tuple(parts), len(step))

    def collate_windows(self, step: NDArray[np.int64]) -> TrainingBatch:
        """The micro-batches of one step, with the target after each position."""
        windows = self.windows
        indices, counted = own_share(step)
        parts = []
        for rows in by_length(indices, windows.lengths[indices]):
            starts, lengths = windows.starts[rows], windows.lengths[rows]
            targets_BL = self.padded(starts + 1, lengths) * counted
            targets_BL[np.arange(targets_BL.shape[1]) < windows.skipped[rows][:, None]] = 0
            parts.append(self.batch(windows.users[rows], starts, lengths, targets_BL))
        return TrainingBatch(tuple(parts), int((windows.lengths[step] - windows.skipped[step]).sum()))

    def collate_rows(self, step: NDArray[np.int64]) -> TrainingBatch:
        """One pass for the whole step, several windows to a row, with the target after each position."""
        windows = self.windows
        indices, counted = own_share(step)
        starts, lengths, skipped = (each[indices] for each in (windows.starts, windows.lengths, windows.skipped))
        rows_B, columns_B, shape = side_by_side(lengths, self.max_len)
        within = place_in_group(lengths)
        place = np.repeat(rows_B, lengths), np.repeat(columns_B, lengths) + within
        items, source = self.interactions.items, np.repeat(starts, lengths) + within
        targets = np.where(within >= np.repeat(skipped, lengths), items[source + 1], 0) * counted
        sequences = np.repeat(np.arange(len(lengths)), lengths)
        packing = Packing(scattered(shape, place, sequences, -1), scattered(shape, place, within, 0))
        nothing_B = torch.zeros(shape[0], dtype=torch.int64)
        items_BL, targets_BL = scattered(shape, place, items[source], 0), scattered(shape, place, targets, 0)
        part = SequenceBatch(items_BL, nothing_B, nothing_B, targets_BL, packing=packing)
        return TrainingBatch((part,), int((windows.lengths[step] - windows.skipped[step]).sum()))

    def evaluation(self, held_out: int) -> Batches[SequenceBatch]:
        """Every user to evaluate once, over all processes; the target is the last item but `held_out - 1`.

        All processes get the same number of batches, since DDP may talk between them; the last can be empty.
        """
        users = self.validated if held_out == 2 else self.tested
        splits = evaluation_splits(self.interactions, users, self.eval_batch_size)
        return Batches(splits, lambda batch: self.collate_evaluation(batch, held_out))

    def collate_evaluation(self, users_B: NDArray[np.int64], held_out: int) -> SequenceBatch:
        """The last `max_len` items before the target, and everything before it as history."""
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
        return SequenceBatch(
            torch.from_numpy(self.padded(starts_B, lengths_B)),
            torch.from_numpy(lengths_B),
            torch.from_numpy(users_B),
            torch.from_numpy(targets),
            seen_rows,
            seen_items,
        )

    def padded(self, starts_B: NDArray[np.int64], lengths_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Stretches of the flat array as rows, padded with 0 on the right."""
        column_L = np.arange(lengths_B.max(initial=0))
        places_BL = starts_B[:, None] + column_L
        inside_BL = column_L < lengths_B[:, None]
        items_BL = self.interactions.items[np.where(inside_BL, places_BL, 0)].astype(np.int64)
        return np.where(inside_BL, items_BL, 0)


def sample_users(interactions: Interactions, count: int | None) -> NDArray[np.int64]:
    """`count` of the users that can be evaluated, drawn without replacement; all of them where they are no more."""
    users = interactions.evaluated_users
    if count is None or count >= len(users):
        return users
    return np.sort(np.random.default_rng(SAMPLE_SEED).choice(users, count, replace=False))


def scattered(
    shape: tuple[int, int], place: tuple[NDArray[np.int64], NDArray[np.int64]], values: NDArray[np.int64], blank: int
) -> Tensor:
    """An int64 array of `blank` with values at some places."""
    array = np.full(shape, blank, dtype=np.int64)
    array[place] = values
    return torch.from_numpy(array)


def evaluation_splits(interactions: Interactions, users: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """This process's batches of users, of similar length; as many as every other process's, the last may be empty."""
    users = users[np.argsort(interactions.lengths[users], kind="stable")]
    rank, world_size = process_place()
    largest_share = -(-len(users) // world_size)
    return np.split(users[rank::world_size], range(batch_size, largest_share, batch_size))


def seen_items(
    interactions: Interactions, begins_B: NDArray[np.int64], ends_B: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Stretches of the flat array as pairs of row and item id, int64 `[S]` both."""
    counts_B = ends_B - begins_B
    rows_S = np.repeat(np.arange(len(counts_B)), counts_B)
    places_S = place_in_group(counts_B) + np.repeat(begins_B, counts_B)
    return torch.from_numpy(rows_S), torch.from_numpy(interactions.items[places_S].astype(np.int64))
