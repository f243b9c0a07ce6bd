"""Validation and test of every LightningModule that ranks items.

Shapes: B users, D size of a user vector, I items (row 0 of the table is padding), S (user, item) pairs of histories,
K items of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning
from torch import Tensor

from tslrec.evaluation.chosen_metrics import RankingMetrics, parse_metric, validation_metrics
from tslrec.evaluation.ranking import ranks_in_lists, target_ranks, top_lists, without_seen
from tslrec.evaluation.user_ranks import UserRanks
from tslrec.system.errors import UserError


class EvaluatedUsers(NamedTuple):
    """The users of an evaluation batch, and the item that each of them took next.

    Attributes:
        users_B: rows of the users in the data set, int64.
        targets_B: item ids, from 1.
        seen_rows_S: with `seen_items_S`, each user's whole history before the target: rows of this batch.
        seen_items_S: item ids, from 1.
    """

    users_B: Tensor
    targets_B: Tensor
    seen_rows_S: Tensor
    seen_items_S: Tensor


class ScoredUsers(NamedTuple):
    """What a module that scores every item gives: an item's score is the dot product of the two.

    Attributes:
        users: of the batch.
        user_BD: user vectors.
        table_ID: the output item table; row 0 is padding.
    """

    users: EvaluatedUsers
    user_BD: Tensor
    table_ID: Tensor


class ListedUsers(NamedTuple):
    """What a module that gives a list of items instead of scores gives.

    Attributes:
        users: of the batch.
        lists_BK: item ids, best first, distinct; 0 is an empty place. K is the module's `list_length`.
        masked_BK: the same under the masked protocol, without items that the users had before; None: what is left of
            `lists_BK` without these items.
    """

    users: EvaluatedUsers
    lists_BK: Tensor
    masked_BK: Tensor | None = None


class RankedUsers(NamedTuple):
    """What a module that ranks the targets itself gives.

    Attributes:
        users: of the batch.
        masked_B: float64 ranks of the targets, from 1, history masked; infinite where a target cannot be recommended.
        unmasked_B: the same, history not masked.
        lists: item ids, best first, `[B, K]`, masked and unmasked; 0 is an empty place. They reach as far as metrics of
            lists look; None if there are no such metrics.
    """

    users: EvaluatedUsers
    masked_B: Tensor
    unmasked_B: Tensor
    lists: tuple[Tensor, Tensor] | None = None


class RankingHooks(lightning.LightningModule):
    """The hooks by which Lightning validates and tests a module that ranks items, under both ranking protocols.

    A subclass calls `prepare_ranking` at the end of its `__init__`, and implements `predict_users`. This class has no
    `__init__`, so that it can stand beside any other LightningModule as a base class.

    Attributes:
        validation_metrics: of the validation that runs.
        test_metrics: of the test that runs.
        test_ranks: the rank of each tested user's target.
        list_length: K of a module that gives lists; None of one that scores every item.
    """

    validation_metrics: RankingMetrics
    test_metrics: RankingMetrics
    test_ranks: UserRanks
    list_length: int | None

    def prepare_ranking(
        self, metrics: Sequence[str], training_counts_I: Tensor | None = None, *, list_length: int | None = None
    ) -> None:
        """Sets up both evaluations.

        Args:
            metrics: of the test, such as `NDCG@10`; the validation has those of ranks, and the one that selects.
            training_counts_I: how often each item occurs in the training part, int64 `[I + 1]`; needed where a metric
                is of recommended lists.
            list_length: see the class.

        Raises:
            UserError: if a metric looks further than the module's lists reach.
        """
        validated = validation_metrics(metrics)
        for name in [*metrics, *validated]:
            if list_length is not None and parse_metric(name)[1] > list_length:
                raise UserError(f"metrics: {name} looks at more than the {list_length} items that this method lists")
        self.list_length = list_length
        self.validation_metrics = RankingMetrics(validated)
        self.test_metrics = RankingMetrics(metrics, training_counts_I)
        self.test_ranks = UserRanks()

    def predict_users(self, batch: Any) -> ScoredUsers | ListedUsers | RankedUsers | None:
        """Scores, a list of items, or the target's rank for each user of a batch; None if no user of it counts."""
        raise NotImplementedError

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.rank(batch, self.validation_metrics)

    def on_validation_epoch_end(self) -> None:
        self.log_ranking("validation", self.validation_metrics)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.rank(batch, self.test_metrics, self.test_ranks)

    def on_test_epoch_end(self) -> None:
        self.log_ranking("test", self.test_metrics)

    def rank(self, batch: Any, metrics: RankingMetrics, kept: UserRanks | None = None) -> None:
        """Counts the users of a batch by the ranks of their targets under both protocols.

        Args:
            batch: of an evaluation.
            metrics: what is counted; recommended lists only where it needs them.
            kept: keeps the ranks of single users; None: they are not kept.
        """
        predicted = self.predict_users(batch)
        if predicted is None:
            return
        users = predicted.users
        if isinstance(predicted, ListedUsers):
            masked_BK = predicted.masked_BK
            if masked_BK is None:
                masked_BK = without_seen(predicted.lists_BK, users.seen_rows_S, users.seen_items_S)
            lists = masked_BK, predicted.lists_BK
            masked_B, unmasked_B = (ranks_in_lists(lists_BK, users.targets_B) for lists_BK in lists)
        elif isinstance(predicted, RankedUsers):
            masked_B, unmasked_B = predicted.masked_B, predicted.unmasked_B
            if metrics.list_length > 0:
                assert predicted.lists is not None
                lists = predicted.lists
        else:
            _, user_BD, table_ID = predicted
            masked_B, unmasked_B = target_ranks(
                user_BD, table_ID, users.targets_B, users.seen_rows_S, users.seen_items_S
            )
            if metrics.list_length > 0:
                lists = top_lists(user_BD, table_ID, metrics.list_length, users.seen_rows_S, users.seen_items_S)
        metrics.update(masked_B, unmasked_B)
        if metrics.list_length > 0:
            metrics.update_lists(*lists)
        if kept is not None:
            kept.add(users.users_B, masked_B, unmasked_B)

    def log_ranking(self, part: str, metrics: RankingMetrics) -> None:
        """Logs the metrics of an evaluation that has ended, over all processes, and forgets its users.

        Args:
            part: `validation` or `test`.
            metrics: what was counted. A test by lists also logs `test/list_length`: ranks beyond it are infinite.
        """
        values = {f"{part}/{name}": value for name, value in metrics.compute().items()}
        if part == "test" and self.list_length is not None:
            values[f"{part}/list_length"] = float(self.list_length)
        self.log_dict(values)
        metrics.reset()
