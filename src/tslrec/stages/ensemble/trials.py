"""Measures many weightings of an ensemble on the validation users, for one product of vectors and tables each.

The concatenated vectors (`combined`) would be multiplied with the table anew for each weighting. Here each member's
scores of a few users are computed once for all weightings of a round of the search, and then summed and ranked.

Shapes: B users of a batch, I items without padding, E size of a member's user vector, S (user, item) pairs of
histories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.evaluation.chosen_metrics import no_other_process, parse_metric
from tslrec.evaluation.hooks import EvaluatedUsers
from tslrec.evaluation.metrics import RankMetric
from tslrec.settings.metrics import SELECTING_METRIC
from tslrec.stages.ensemble.combining import Voice
from tslrec.stages.ensemble.search import Weights
from tslrec.stages.evaluating import evaluated_users, evaluation_inputs
from tslrec.system.errors import UserError

SCORES = 2**22
"""Scores of a member that are held at a time: 16 MiB."""


@dataclass(frozen=True)
class VoicedUsers:
    """Validation users, and what each member says of them.

    Attributes:
        users: of the batch.
        said: of each member its user vectors `[B, E]`; as a sparse tensor where they are as long as a list of all
            items, for nearly all of their numbers are zeros.
    """

    users: EvaluatedUsers
    said: tuple[Tensor, ...]


class Trials:
    """The validation users of an ensemble with the members' user vectors, computed once.

    Args:
        voices: the members.
        interactions: the data set.
        config: the run's: which users are validated, and by which protocol weights are selected.

    Raises:
        UserError: if a user vector is not finite.
    """

    def __init__(self, voices: Sequence[Voice], interactions: Interactions, config: Config) -> None:
        self.products = [voice.product for voice in voices]
        self.num_items = len(self.products[0].items_IE)
        self.masked = config.training.selection == "masked"
        longest = max(voice.max_len for voice in voices)
        self.batches = []
        with torch.inference_mode():
            for batch in evaluation_inputs(interactions, config, "validation", longest):
                said = [voice.encode(batch.items_BL, batch.lengths_B) for voice in voices]
                for number, user_BE in enumerate(said, 1):
                    if not bool(torch.isfinite(user_BE).all()):
                        raise UserError(
                            f"members: number {number} gives user vectors that are not finite; train it anew"
                        )
                kept = [
                    user_BE.to_sparse() if product.is_wide else user_BE
                    for product, user_BE in zip(self.products, said, strict=True)
                ]
                self.batches.append(VoicedUsers(evaluated_users(batch), tuple(kept)))

    @torch.inference_mode()
    def measure(self, weightings: Sequence[Weights]) -> list[float]:
        """The validation NDCG@10 of each weighting."""
        kind, k = parse_metric(SELECTING_METRIC)
        metrics = [kind(k) for _ in weightings]
        rows = max(1, SCORES // self.num_items)
        for batch in self.batches:
            size = len(batch.users.targets_B)
            for begin in range(0, size, rows):
                users = some_users(batch.users, begin, min(size, begin + rows))
                scores = [
                    product(rows_of(each_BE, begin, begin + rows))
                    for product, each_BE in zip(self.products, batch.said, strict=True)
                ]
                for weights, metric in zip(weightings, metrics, strict=True):
                    assert isinstance(metric, RankMetric)
                    metric.update(ranks_of(weighted(scores, weights), users, masked=self.masked))
        for metric in metrics:
            metric.distributed_available_fn = no_other_process
        return [float(metric.compute()) for metric in metrics]


def rows_of(user_BE: Tensor, begin: int, end: int) -> Tensor:
    """Some of the user vectors, with their zeros."""
    if not user_BE.is_sparse:
        return user_BE[begin:end]
    return user_BE.narrow_copy(0, begin, min(end, len(user_BE)) - begin).to_dense()


def weighted(scores: Sequence[Tensor], weights: Weights) -> Tensor:
    """The weighted sum of the members' scores, a new tensor `[B, I]`."""
    total_BI = torch.zeros_like(scores[0])
    for each_BI, weight in zip(scores, weights, strict=True):
        if weight > 0:
            total_BI.add_(each_BI, alpha=weight)
    return total_BI


def some_users(users: EvaluatedUsers, begin: int, end: int) -> EvaluatedUsers:
    """The users of some rows of a batch, whose `seen_rows_S` do not fall."""
    first, last = torch.searchsorted(users.seen_rows_S, torch.tensor([begin, end])).tolist()
    return EvaluatedUsers(
        users.users_B[begin:end],
        users.targets_B[begin:end],
        users.seen_rows_S[first:last] - begin,
        users.seen_items_S[first:last],
    )


def ranks_of(scores_BI: Tensor, users: EvaluatedUsers, *, masked: bool) -> Tensor:
    """The ranks of the targets as `tslrec.evaluation.ranking.target_ranks` defines them, of scores of all items.

    Args:
        scores_BI: of the items without padding; overwritten.
        users: of the batch.
        masked: whether items of the histories are no candidates.
    """
    columns_B = users.targets_B - 1
    target_B1 = scores_BI.gather(1, columns_B[:, None])
    if masked:
        scores_BI[users.seen_rows_S, users.seen_items_S - 1] = -torch.inf
    higher_B = (scores_BI > target_B1).sum(dim=1)
    hidden_B = scores_BI.gather(1, columns_B[:, None])[:, 0] == -torch.inf
    others_B = (scores_BI == target_B1).sum(dim=1) - 1
    return (1 + higher_B + others_B.double() / 2).masked_fill(hidden_B, torch.inf)
