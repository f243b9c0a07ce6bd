"""Ranks and lists as a GPU computes them equal the definition and those of the CPU, with one question to the device."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from support.synchronisations import as_on_a_gpu, reading_counted
from tslrec.evaluation import device_ranking, ranking
from tslrec.evaluation.best_items import best_columns, stable_order
from tslrec.evaluation.chosen_metrics import RankingMetrics
from tslrec.evaluation.hooks import EvaluatedUsers, RankingHooks, ScoredUsers
from tslrec.evaluation.user_ranks import UserRanks
from tslrec.system.errors import UserError

__all__ = ["as_on_a_gpu"]

NOTHING = torch.zeros(0, dtype=torch.int64)


def made(num_users: int, num_items: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Users, table, targets and histories. Small whole numbers: products are exact, and there are many ties."""
    draw = torch.Generator().manual_seed(seed)
    user = torch.randint(-2, 3, (num_users, 3), generator=draw).float()
    table = torch.randint(-2, 3, (num_items + 1, 3), generator=draw).float()
    targets = torch.randint(1, num_items + 1, (num_users,), generator=draw)
    history = torch.randint(1, num_items + 1, (num_users, 9), generator=draw)
    return user, table, targets, torch.arange(num_users).repeat_interleave(9), history.flatten()


@pytest.mark.parametrize("num_items", [1, 30, 31, 32, 33, 95, 96, 200, 257])
@pytest.mark.parametrize("columns", [32, 50, 64, 1000])
@pytest.mark.parametrize("num_users", [1, 9, 70])
def test_any_block_gives_the_ranks_and_lists_of_the_cpu(num_items: int, columns: int, num_users: int) -> None:
    user, table, targets, rows, items = made(num_users, num_items, seed=num_items)
    bytes_held = columns * num_users * 4
    found = device_ranking.target_ranks(user, table, targets, rows, items, bytes_held)
    for expected, ranks in zip(ranking.target_ranks(user, table, targets, rows, items), found, strict=True):
        assert torch.equal(expected, ranks)
    for length in (1, 10, 60):
        lists = device_ranking.top_lists(user, table, length, rows, items, bytes_held)
        for expected, ids in zip(ranking.top_lists(user, table, length, rows, items), lists, strict=True):
            assert torch.equal(expected, ids)


@pytest.mark.parametrize("rows", [2, 33, 64, 65, 100, 1001])
@pytest.mark.parametrize("columns", [32, 33, 95, 600])
def test_blocks_cover_each_item_once_begin_aligned_and_have_one_shape(rows: int, columns: int) -> None:
    blocks, scores_BC = device_ranking.blocks_for(torch.zeros(7, 2), torch.zeros(rows, 2), columns * 7 * 4)
    assert [row for block in blocks for row in range(block.begin, block.end)] == list(range(1, rows))
    assert all(block.first % device_ranking.ALIGNED == 0 for block in blocks)
    assert all(block.first <= block.begin for block in blocks)
    assert {block.end - block.first for block in blocks} == {scores_BC.shape[1]}


@pytest.mark.parametrize("columns", [256, 2000])
def test_items_with_the_same_vector_tie_to_the_last_bit(columns: int) -> None:
    torch.manual_seed(0)
    # A number of rows that MKL sums alike to the last one; cuBLAS sums the last ones like the others.
    table = torch.randn(1, 64).expand(1024, 64).contiguous()
    for num_users in (1, 5, 301):
        user, targets = torch.randn(num_users, 64), torch.randint(1, 1024, (num_users,))
        _, unmasked = device_ranking.target_ranks(user, table, targets, NOTHING, NOTHING, columns * num_users * 4)
        assert (unmasked == 512).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    user, table = torch.ones(2, 2), torch.zeros(400, 2)
    table[390] = value
    with pytest.raises(UserError, match="not finite"):
        device_ranking.target_ranks(user, table, torch.tensor([2, 2]), NOTHING, NOTHING, 64 * 8)


def test_large_scores_that_are_finite_are_ranked_and_padding_is_not_looked_at() -> None:
    user, table = torch.tensor([[1e20, 0.0]]), torch.tensor([[float("nan"), 0.0], [1e18, 0.0], [1.0, 1e20]])
    assert device_ranking.target_ranks(user, table, torch.tensor([2]), NOTHING, NOTHING)[1].item() == 2


def test_vectors_of_two_types_are_ranked_in_the_wider_one() -> None:
    user, table, targets, rows, items = made(5, 40)
    expected = ranking.target_ranks(user, table, targets, rows, items)
    found = device_ranking.target_ranks(user.bfloat16(), table, targets, rows, items)
    assert all(torch.equal(*each) for each in zip(found, expected, strict=True))


def test_products_are_in_full_precision_whatever_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    product = torch.mm

    def watched(*arguments: Tensor, out: Tensor) -> Tensor:
        found.append(torch.get_float32_matmul_precision())
        return product(*arguments, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    user, table, targets, rows, items = made(5, 40)
    torch.set_float32_matmul_precision("high")
    try:
        device_ranking.target_ranks(user, table, targets, rows, items)
        device_ranking.top_lists(user, table, 3, rows, items)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found == ["highest"] * 2


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("columns", [1, 3, 64, 700])
def test_the_best_columns_are_those_of_a_stable_sort(kind: torch.dtype, columns: int) -> None:
    draw = torch.Generator().manual_seed(columns)
    scores = torch.randint(-3, 4, (6, columns), generator=draw).to(kind) / 8
    # Both zeros are equal; both ends of the range occur.
    scores[0, ::2] = -0.0
    scores[1, ::3] = -torch.inf
    scores[2] = torch.randn(columns, generator=draw).to(kind) * 1e30
    expected, order = scores.sort(dim=1, descending=True, stable=True)
    for length in {1, min(10, columns), columns}:
        assert torch.equal(stable_order(scores, length), order[:, :length])
        found, values = best_columns(scores, length)
        assert torch.equal(found, order[:, :length])
        assert torch.equal(values, expected[:, :length])


class Scorer(RankingHooks):
    """Scores by given vectors."""

    def __init__(self, user_BD: Tensor, table_ID: Tensor, metrics: list[str]) -> None:
        super().__init__()
        self.user_BD, self.table_ID = user_BD, table_ID
        self.prepare_ranking(metrics, torch.ones(len(table_ID), dtype=torch.int64))

    def predict_users(self, batch: EvaluatedUsers) -> ScoredUsers:
        return ScoredUsers(batch, self.user_BD, self.table_ID)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("metrics", [["HR@5", "NDCG@10", "MRR@7"], ["NDCG@10", "Coverage@10", "Gini@5"]])
def test_an_evaluation_batch_asks_the_device_one_question(metrics: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    user, table, targets, rows, items = made(9, 300)
    module = Scorer(user, table, metrics)
    batch = EvaluatedUsers(torch.arange(9), targets, rows, items)
    with reading_counted(monkeypatch) as waiting:
        module.test_step(batch, 0)
    # Whether scores may overflow.
    assert dict(waiting.found) == {"_local_scalar_dense": 1}


def test_the_same_batch_on_a_cpu_is_seen_to_ask_more(monkeypatch: pytest.MonkeyPatch) -> None:
    user, table, targets, rows, items = made(9, 300)
    with reading_counted(monkeypatch) as waiting:
        ranking.target_ranks(user, table, targets, rows, items)
    assert {"_local_scalar_dense", "_unique2", "index", "tolist"} <= set(waiting.found)


def test_users_that_are_counted_at_once_give_the_metrics_of_users_counted_by_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for at_once in (False, True):
        monkeypatch.setattr("tslrec.system.devices.queues_work", lambda device, chosen=at_once: chosen)
        metrics = RankingMetrics(["HR@2", "NDCG@4"])
        for masked, unmasked in (([1.0, 3.0], [2.0, 3.0]), ([torch.inf], [9.0])):
            metrics.update(torch.tensor(masked).double(), torch.tensor(unmasked).double())
        found += [metrics.compute(), metrics.compute()]
        metrics.reset()
        metrics.update(torch.ones(1).double(), torch.ones(1).double())
        assert set(metrics.compute().values()) == {1.0}
    assert all(each == pytest.approx(found[0], abs=1e-15) for each in found[1:])
    assert found[0]["masked/HR@2"] == 1 / 3


def test_ranks_of_users_are_copied_to_the_host_once_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = UserRanks()
    with reading_counted(monkeypatch) as waiting:
        ranks.add(torch.tensor([2, 0]), torch.tensor([1.0, torch.inf]), torch.tensor([2.0, 3.5]))
        ranks.add(torch.tensor([3]), torch.tensor([4.0]), torch.tensor([5.0]))
    assert waiting.count == 0
    gathered = ranks.gather(5, torch.device("cpu"))
    assert gathered["users"].tolist() == [0, 2, 3]
    assert gathered["masked"].tolist() == [torch.inf, 1, 4]
    assert gathered["unmasked"].tolist() == [3.5, 2, 5]
