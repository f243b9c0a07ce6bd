"""Validates and tests a recommender that no trainer trained: one process alone, without a trainer, on the CPU.

Shapes: B users of a batch, E size of a user vector, T evaluated users.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.config import Config
from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.evaluated_users import sample_users
from tslrec.data.interactions import TEST, VALIDATION, Interactions
from tslrec.data.sequence_batch import SequenceBatch
from tslrec.evaluation.hooks import EvaluatedUsers, RankingHooks, ScoredUsers
from tslrec.evaluation.user_ranks import UserRanks
from tslrec.stages.recommender import counts_for
from tslrec.stages.restored import Restored

Part = Literal["validation", "test"]
"""An evaluation: of the last item but one of each user, or of the last item."""

HELD_OUT = {"validation": VALIDATION, "test": TEST}
"""The target's position from the end of a history, by evaluation."""


class RestoredHooks(RankingHooks):
    """Ranks the users of a batch by a restored recommender, as `train_recommender` ranks them by its module.

    Args:
        restored: the recommender.
        metrics: see `RankingHooks.prepare_ranking`.
        training_counts_I: see `RankingHooks.prepare_ranking`.
    """

    def __init__(self, restored: Restored, metrics: list[str], training_counts_I: Tensor | None) -> None:
        super().__init__()
        self.restored = restored
        self.prepare_ranking(metrics, training_counts_I)

    def predict_users(self, batch: SequenceBatch) -> ScoredUsers:
        user_BE = self.restored.encode(batch.items_BL, batch.lengths_B).float()
        return ScoredUsers(evaluated_users(batch), user_BE, self.restored.output_IE.float())


@torch.inference_mode()
def evaluate_restored(
    restored: Restored, interactions: Interactions, config: Config, part: Part
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Ranks each user's held-out item among all items, exactly, under both protocols.

    No collective operation takes place, so a stage that rank 0 runs alone may call it in a job of several processes.

    Args:
        restored: the recommender, on the CPU.
        interactions: the data set.
        config: the run's; `metrics`, and of `training` the users to evaluate and how many at a time.
        part: which evaluation.

    Returns:
        The metrics, named `validation/masked/NDCG@10` and so on, with `validation/users`; and the ranks: `users`, rows
        of the evaluated users, int64 `[T]`, rising, and for each protocol float32 `[T]` (see `UserRanks`).

    Raises:
        UserError: if a score is not finite.
    """
    hooks = RestoredHooks(restored, list(config.metrics), counts_for(config.metrics, interactions))
    counted = hooks.validation_metrics if part == "validation" else hooks.test_metrics
    ranks = UserRanks()
    for batch in evaluation_inputs(interactions, config, part, restored.max_len):
        hooks.rank(batch, counted, ranks)
    found = ranks.alone(interactions.num_users)
    values = {f"{part}/{name}": value for name, value in counted.compute_alone().items()}
    return {**values, f"{part}/users": len(found["users"])}, found


def evaluation_inputs(interactions: Interactions, config: Config, part: Part, max_len: int) -> Iterator[SequenceBatch]:
    """The batches of an evaluation, of users whose histories have about the same length; all of them in this process.

    Args:
        interactions: the data set.
        config: see `evaluate_restored`.
        part: which evaluation.
        max_len: the longest input, in items.
    """
    data = SequenceDataModule(
        interactions,
        max_len=max_len,
        batch_size=config.training.batch_size,
        eval_batch_size=config.training.eval_batch_size,
        all_positions=True,
        seed=0,
    )
    users_T = users_of(interactions, config, part)
    order_T = interactions.lengths[users_T].argsort(kind="stable")
    for begin in range(0, len(users_T), data.eval_batch_size):
        yield data.collate_evaluation(users_T[order_T[begin : begin + data.eval_batch_size]], HELD_OUT[part])


def users_of(interactions: Interactions, config: Config, part: Part) -> NDArray[Any]:
    """Rows of the users of an evaluation in the data set, int64 `[T]`, rising."""
    training = config.training
    return sample_users(interactions, training.validation_users if part == "validation" else training.test_users)


def evaluated_users(batch: SequenceBatch) -> EvaluatedUsers:
    """The users of an evaluation batch, and the item that each of them took next."""
    assert batch.seen_rows is not None
    assert batch.seen_items is not None
    return EvaluatedUsers(batch.users_B, batch.targets, batch.seen_rows, batch.seen_items)
