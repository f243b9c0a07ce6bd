"""The hooks that every ranking module shares, for a module that gives lists and one that gives scores."""

from __future__ import annotations

from collections.abc import Iterator
from math import log2
from typing import Any

import lightning
import pytest
import torch
import torch.nn.functional as F

from tslrec.evaluation.hooks import EvaluatedUsers, ListedUsers, RankingHooks, ScoredUsers
from tslrec.system.errors import UserError

LISTS = torch.tensor([[4, 2, 5, 1], [3, 1, 2, 0], [2, 3, 5, 4]])
TARGETS = torch.tensor([5, 2, 1])
SEEN_ROWS, SEEN_ITEMS = torch.tensor([0, 1, 1, 2]), torch.tensor([2, 2, 4, 3])
COUNTS = torch.tensor([0, 1, 2, 3, 4, 5])


class Lister(RankingHooks):
    """Gives the list above to each user, its other six places empty."""

    def __init__(self, metrics: list[str]) -> None:
        super().__init__()
        self.prepare_ranking(metrics, COUNTS, list_length=10)

    def predict_users(self, batch: EvaluatedUsers) -> ListedUsers | None:
        return ListedUsers(batch, F.pad(LISTS[batch.users_B], (0, 6))) if len(batch.users_B) else None


class Scorer(RankingHooks):
    """Scores items so that its lists begin with the lists above."""

    def __init__(self, metrics: list[str]) -> None:
        super().__init__()
        self.prepare_ranking(metrics, COUNTS)

    def predict_users(self, batch: EvaluatedUsers) -> ScoredUsers | None:
        if len(batch.users_B) == 0:
            return None
        places = torch.arange(4.0, 0.0, -1.0).expand(len(batch.users_B), 4)
        scores = torch.zeros(len(batch.users_B), 6).scatter_(1, LISTS[batch.users_B], places)
        return ScoredUsers(batch, scores, torch.eye(6))


class Batches:
    """The three users in two batches, and one without users."""

    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Iterator[EvaluatedUsers]:
        for users in (torch.tensor([0, 1]), torch.tensor([2]), torch.zeros(0, dtype=torch.int64)):
            of_these = torch.isin(SEEN_ROWS, users)
            rows = SEEN_ROWS[of_these] - (users[0] if len(users) else 0)
            yield EvaluatedUsers(users, TARGETS[users], rows, SEEN_ITEMS[of_these])


def evaluate(module: RankingHooks, part: str) -> dict[str, Any]:
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    run = trainer.validate if part == "validation" else trainer.test
    (found,) = run(module, Batches(), verbose=False)
    return dict(found)


METRICS = ["HR@2", "NDCG@4", "Coverage@1", "Popularity@2"]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ranks_and_metrics_of_a_module_that_gives_lists() -> None:
    module = Lister(METRICS)
    # Unmasked, the targets stand in places 3 and 3 and nowhere. Masked, user 0 loses item 2 before its target, and
    # user 1 its target.
    expected = {
        "test/masked/HR@2": 1 / 3,
        "test/masked/NDCG@4": (1 / log2(3)) / 3,
        "test/masked/Coverage@1": 3 / 5,
        "test/masked/Popularity@2": (4 + 5 + 3 + 1 + 2 + 5) / 6,
        "test/unmasked/HR@2": 0,
        "test/unmasked/NDCG@4": (2 / log2(4)) / 3,
        "test/unmasked/Coverage@1": 3 / 5,
        "test/unmasked/Popularity@2": (4 + 2 + 3 + 1 + 2 + 3) / 6,
        "test/list_length": 10,
    }
    assert evaluate(module, "test") == pytest.approx(expected, abs=1e-7)
    ranks = module.test_ranks.gather(3, module.device)
    assert ranks["users"].tolist() == [0, 1, 2]
    assert ranks["masked"].tolist() == [2, float("inf"), float("inf")]
    assert ranks["unmasked"].tolist() == [3, 3, float("inf")]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_module_that_scores_has_the_metrics_of_its_first_items() -> None:
    scored, listed = (evaluate(kind([*METRICS, "Gini@2"]), "test") for kind in (Scorer, Lister))
    assert listed.pop("test/list_length") == 10
    # NDCG@4 differs: items that are on no list are ranked as well.
    assert {name: value for name, value in scored.items() if "NDCG" not in name} == {
        name: value for name, value in listed.items() if "NDCG" not in name
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_validation_computes_ranks_alone_and_the_selecting_metric() -> None:
    found = evaluate(Scorer(["Coverage@2", "MRR@3"]), "validation")
    assert set(found) == {
        f"validation/{protocol}/{name}" for protocol in ("masked", "unmasked") for name in ("MRR@3", "NDCG@10")
    }


def test_a_metric_that_looks_further_than_the_lists_is_refused() -> None:
    with pytest.raises(UserError, match="metrics: HR@20 looks at more than the 10 items that this method lists"):
        Lister(["HR@20"])
