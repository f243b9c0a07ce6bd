"""Each metric equals a value computed by hand, under both protocols and over two processes."""

from __future__ import annotations

import json
from math import inf, log2
from pathlib import Path

import numpy as np
import pytest
import torch

from support.metric_scenarios import NAMES, metrics_of
from support.processes import run_together
from tslrec.evaluation.chosen_metrics import RankingMetrics, parse_metric, validation_metrics
from tslrec.evaluation.metrics import METRICS_BY_NAME, HitRate
from tslrec.evaluation.ranking import target_ranks, top_lists
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.system.errors import UserError

# Five items whose vectors are unit vectors, so that a user's vector lists its scores; column 0 is padding.
TABLE = torch.eye(6)
USERS = torch.tensor(
    [
        [0.0, 5.0, 4.0, 3.0, 2.0, 1.0],
        [0.0, 1.0, 3.0, 3.0, 3.0, 0.0],
        [0.0, 9.0, 8.0, 0.0, 0.0, 0.0],
    ]
)
TARGETS = torch.tensor([3, 4, 1])
# The third user had its target before: masked, it can never be recommended.
SEEN_ROWS, SEEN_ITEMS = torch.tensor([0, 1, 2, 2]), torch.tensor([1, 5, 1, 3])
COUNTS = torch.tensor([0, 10, 4, 3, 2, 1])

# User 1: 3 is behind 1 and 2; without 1, behind 2. User 2: 2, 3 and 4 tie, the middle of three places.
# User 3: 1 is first, or seen.
RANKS = {"unmasked": [3.0, 2.0, 1.0], "masked": [2.0, 2.0, inf]}
# Of equal scores the lower id is first.
LISTS = {"unmasked": [[1, 2], [2, 3], [1, 2]], "masked": [[2, 3], [2, 3], [2, 4]]}

BY_HAND = {
    "unmasked/HR@2": 2 / 3,
    "masked/HR@2": 2 / 3,
    "unmasked/HR@1": 1 / 3,
    "masked/HR@1": 0,
    "unmasked/Recall@3": 1,
    "masked/Recall@3": 2 / 3,
    "unmasked/NDCG@3": (1 / log2(4) + 1 / log2(3) + 1) / 3,
    "masked/NDCG@3": (2 / log2(3)) / 3,
    "unmasked/MRR@3": (1 / 3 + 1 / 2 + 1) / 3,
    "masked/MRR@3": (1 / 2 + 1 / 2) / 3,
    "unmasked/MAP@2": (1 / 2 + 1) / 3,
    "masked/MAP@2": (1 / 2 + 1 / 2) / 3,
    "unmasked/Precision@2": (1 / 2 + 1 / 2) / 3,
    "masked/Precision@2": (1 / 2 + 1 / 2) / 3,
    # Recommended: 1 twice, 2 three times, 3 once; masked: 2 three times, 3 twice, 4 once.
    "unmasked/Coverage@2": 3 / 5,
    "masked/Coverage@2": 3 / 5,
    "unmasked/Coverage@1": 2 / 5,
    "masked/Coverage@1": 1 / 5,
    "unmasked/Popularity@2": (2 * 10 + 3 * 4 + 1 * 3) / 6,
    "masked/Popularity@2": (3 * 4 + 2 * 3 + 1 * 2) / 6,
    # 0, 0, 1, 2, 3 with the weights -4, -2, 0, 2, 4, over 5 items and 6 places.
    "unmasked/Gini@2": (2 * 2 + 4 * 3) / 30,
    "masked/Gini@2": (2 * 2 + 4 * 3) / 30,
    # One item takes all places.
    "unmasked/Gini@1": (2 * 1 + 4 * 2) / 15,
    "masked/Gini@1": 4 / 5,
}


@pytest.mark.parametrize("batches", [[3], [1, 2]])
def test_each_metric_equals_its_value_by_hand(batches: list[int]) -> None:
    names = list(dict.fromkeys(name.split("/")[1] for name in BY_HAND))
    assert {name.split("@")[0] for name in names} == set(METRICS_BY_NAME)
    metrics = RankingMetrics(names, COUNTS)
    assert metrics.list_length == 2
    begin = 0
    for size in batches:
        here = slice(begin, begin + size)
        of_these = torch.isin(SEEN_ROWS, torch.arange(begin, begin + size))
        seen = SEEN_ROWS[of_these] - begin, SEEN_ITEMS[of_these]
        masked, unmasked = target_ranks(USERS[here], TABLE, TARGETS[here], *seen)
        assert (masked.tolist(), unmasked.tolist()) == (RANKS["masked"][here], RANKS["unmasked"][here])
        lists = top_lists(USERS[here], TABLE, 2, *seen)
        assert [each.tolist() for each in lists] == [LISTS["masked"][here], LISTS["unmasked"][here]]
        metrics.update(masked, unmasked)
        metrics.update_lists(*lists)
        begin += size
    assert metrics.compute() == pytest.approx(BY_HAND, rel=0, abs=1e-15)


def test_two_processes_have_exactly_the_metrics_of_one(tmp_path: Path) -> None:
    run_together("metric_scenarios.py", str(tmp_path))
    one = metrics_of(0, 1)
    assert {name.split("@")[0] for name in NAMES} == set(METRICS_BY_NAME)
    for rank in range(2):
        two = json.loads((tmp_path / f"{rank}.json").read_text())
        # Sums of whole numbers are equal to the last bit; those of logarithms are summed in another order.
        assert two == pytest.approx(one, rel=1e-15, abs=0)
        for name in one:
            if not any(word in name for word in ("NDCG", "MRR", "MAP", "Precision")):
                assert two[name] == one[name]


def test_equally_often_recommended_items_have_a_gini_index_of_0() -> None:
    metrics = RankingMetrics(["Gini@1", "Coverage@1"], COUNTS)
    metrics.update_lists(*[torch.arange(1, 6)[:, None]] * 2)
    assert metrics.compute()["masked/Gini@1"] == 0
    assert metrics.compute()["masked/Coverage@1"] == 1


def test_empty_places_of_a_list_recommend_nothing() -> None:
    metrics = RankingMetrics(["Popularity@3", "Coverage@3"], COUNTS)
    metrics.update_lists(*[torch.tensor([[1, 2, 0], [1, 0, 0]])] * 2)
    assert metrics.compute()["unmasked/Popularity@3"] == (10 + 4 + 10) / 3
    assert metrics.compute()["unmasked/Coverage@3"] == 2 / 5


def test_lists_without_any_item_have_finite_metrics() -> None:
    metrics = RankingMetrics(["Popularity@3", "Coverage@3", "Gini@3"], COUNTS)
    metrics.update_lists(*[torch.zeros(2, 3, dtype=torch.int64)] * 2)
    assert set(metrics.compute().values()) == {0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MRR", r"metrics: 'MRR' has no cutoff of 1 or more; name it like MRR@10"),
        ("MRR@0", r"'MRR@0' has no cutoff"),
        ("HR@ten", r"'HR@ten' has no cutoff"),
        ("hr@10", r"metrics: no metric 'hr@10'; there are HR@k, NDCG@k, MRR@k, Recall@k, Precision@k, MAP@k, Coverage"),
        ("AUC", r"no metric 'AUC'"),
    ],
)
def test_a_metric_that_is_none_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        parse_metric(text)
    assert "\n" not in str(refused.value)


def test_a_metric_is_its_class_and_its_cutoff() -> None:
    assert parse_metric("HR@10") == (HitRate, 10)


def test_a_validation_has_the_selecting_metric_and_none_of_lists() -> None:
    assert validation_metrics(["MRR@5", "Gini@10"]) == ["MRR@5", "NDCG@10"]
    assert validation_metrics(DEFAULT_METRICS) == list(DEFAULT_METRICS)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("name", ["HR@5", "Gini@5"])
def test_a_metric_of_no_users_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no users"):
        RankingMetrics([name], COUNTS).compute()


def test_users_are_counted_in_full_precision_whatever_their_models_is() -> None:
    metrics = RankingMetrics()
    torch.nn.Sequential(metrics).to(torch.bfloat16)
    for _ in range(10):
        metrics.update(torch.ones(99, dtype=torch.float64), torch.full((99,), 2.0, dtype=torch.float64))
    assert metrics.compute()["unmasked/NDCG@10"] == pytest.approx(1 / np.log2(3), abs=1e-12)
    metrics.reset()
    metrics.update(torch.ones(1, dtype=torch.float64), torch.full((1,), 2.0, dtype=torch.float64))
    assert metrics.compute()["unmasked/NDCG@10"] == pytest.approx(1 / np.log2(3), abs=1e-12)
