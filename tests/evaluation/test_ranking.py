"""Exact full ranking equals the reference, and a model that knows nothing does not look perfect."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from support.checkout import golden_folder
from tslrec.evaluation.metrics import NDCG, HitRate
from tslrec.evaluation.ranking import ranks_in_lists, target_ranks, top_lists, without_seen
from tslrec.system.errors import UserError

GOLDEN = golden_folder() / "metrics.npz"
BLOCKS = {"cpu": "tslrec.evaluation.ranking.CPU_BLOCK", "cuda": "tslrec.evaluation.ranking.DEVICE_BLOCK"}
"""What decides the size of a block of items, by type of device."""


def nothing(device: torch.device) -> Tensor:
    return torch.zeros(0, dtype=torch.int64, device=device)


def ranks_from_scores(
    scores_BI: Tensor, targets_B: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor
) -> tuple[Tensor, Tensor]:
    """The ranks of a matrix of scores, column 0 being padding: one-hot vectors for items make any score a product."""
    items_II = torch.eye(scores_BI.shape[1], device=scores_BI.device)
    return target_ranks(scores_BI, items_II, targets_B, seen_rows_S, seen_items_S)


def by_definition(scores_BI: Tensor, targets_B: Tensor, history: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Ranks as their definition says, a user at a time."""
    masked: list[float] = []
    unmasked: list[float] = []
    for scores_I, target, seen in zip(scores_BI.tolist(), targets_B.tolist(), history, strict=True):
        for ranks, excluded in ((unmasked, frozenset[int]()), (masked, frozenset(seen))):
            others = [
                score for item, score in enumerate(scores_I) if item > 0 and item != target and item not in excluded
            ]
            higher = sum(score > scores_I[target] for score in others)
            equal = sum(score == scores_I[target] for score in others)
            ranks.append(float("inf") if target in excluded else 1 + higher + equal / 2)
    return torch.tensor(masked, dtype=torch.float64), torch.tensor(unmasked, dtype=torch.float64)


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the reference file is not beside the checkout")
def test_equals_the_reference(device: torch.device) -> None:
    with np.load(GOLDEN) as file:
        golden = {key: torch.from_numpy(file[key]).to(device) for key in file.files}
    rows, columns = torch.nonzero(golden["history"], as_tuple=True)
    masked, unmasked = ranks_from_scores(golden["scores"], golden["target"], rows, golden["history"][rows, columns])
    for protocol, ranks in (("hist", masked), ("nohist", unmasked)):
        reachable = torch.isfinite(ranks)
        assert torch.equal(ranks[reachable] - 1, golden[f"{protocol}/rank0"][reachable].double())
        for k in (1, 5, 10):
            for name, metric in (("hit", HitRate(k)), ("ndcg", NDCG(k))):
                metric.to(device).update(ranks)
                torch.testing.assert_close(metric.compute(), golden[f"{protocol}/{name}@{k}"], atol=1e-12, rtol=0)


def test_equal_scores_share_the_middle_rank(device: torch.device) -> None:
    target, row, seen = (torch.tensor([number], device=device) for number in (5, 0, 7))
    masked, unmasked = ranks_from_scores(torch.ones(1, 102, device=device), target, row, seen)
    assert unmasked.item() == 51
    assert masked.item() == 50.5


def test_a_seen_item_counts_once_and_a_seen_target_is_unreachable() -> None:
    scores = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    rows = torch.tensor([0, 0])
    assert ranks_from_scores(scores, torch.tensor([3]), rows, torch.tensor([1, 1]))[0].item() == 2
    assert ranks_from_scores(scores, torch.tensor([1]), rows, torch.tensor([1, 2]))[0].item() == float("inf")


@pytest.mark.parametrize("width", [1, 4, 7, 30, 31])
@pytest.mark.parametrize("num_users", [1, 9])
def test_any_block_of_items_gives_the_ranks_of_the_definition(
    monkeypatch: pytest.MonkeyPatch, width: int, num_users: int, device: torch.device
) -> None:
    monkeypatch.setattr(BLOCKS[device.type], (0, width, width))
    draw = torch.Generator().manual_seed(width)
    # Small whole numbers: products are exact, and there are many ties.
    user = torch.randint(-2, 3, (num_users, 3), generator=draw).float()
    table = torch.randint(-2, 3, (31, 3), generator=draw).float()
    targets = torch.randint(1, 31, (num_users,), generator=draw)
    history = torch.randint(1, 31, (num_users, 6), generator=draw)
    rows = torch.arange(num_users).repeat_interleave(6)
    found = target_ranks(*(each.to(device) for each in (user, table, targets, rows, history.flatten())))
    for expected, ranks in zip(by_definition(user @ table.T, targets, history.tolist()), found, strict=True):
        assert torch.equal(expected, ranks.cpu())


@pytest.mark.parametrize("width", [256, 300])
def test_items_with_the_same_vector_tie_to_the_last_bit(
    monkeypatch: pytest.MonkeyPatch, width: int, device: torch.device
) -> None:
    monkeypatch.setattr(BLOCKS[device.type], (0, width, width))
    torch.manual_seed(0)
    table = torch.randn(1, 64, device=device).expand(1002, 64).contiguous()
    for num_users in (1, 5, 301):
        user, targets = torch.randn(num_users, 64, device=device), torch.randint(1, 1002, (num_users,), device=device)
        _, unmasked = target_ranks(user, table, targets, nothing(device), nothing(device))
        assert (unmasked == 501).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_scores_that_are_not_finite_are_refused(value: float, device: torch.device) -> None:
    user, table = torch.ones(2, 2, device=device), torch.zeros(400, 2, device=device)
    table[390] = value
    with pytest.raises(UserError, match="not finite"):
        target_ranks(user, table, torch.tensor([2, 2], device=device), nothing(device), nothing(device))


def test_large_scores_that_are_finite_are_ranked(device: torch.device) -> None:
    user = torch.tensor([[1e20, 0.0]], device=device)
    table = torch.tensor([[0.0, 0.0], [1e18, 0.0], [1.0, 1e20]], device=device)
    target = torch.tensor([2], device=device)
    assert target_ranks(user, table, target, nothing(device), nothing(device))[1].item() == 2


def lists_by_definition(scores_BI: Tensor, history: list[list[int]], length: int) -> tuple[Tensor, Tensor]:
    """Items by falling score, then rising id, a user at a time; padded with 0."""
    masked: list[list[int]] = []
    unmasked: list[list[int]] = []
    for scores_I, seen in zip(scores_BI.tolist(), history, strict=True):
        order = sorted(range(1, len(scores_I)), key=lambda item: (-scores_I[item], item))
        for lists, excluded in ((unmasked, frozenset[int]()), (masked, frozenset(seen))):
            found = [item for item in order if item not in excluded][:length]
            lists.append(found + [0] * (length - len(found)))
    return torch.tensor(masked), torch.tensor(unmasked)


@pytest.mark.parametrize("width", [1, 4, 7, 30, 31])
@pytest.mark.parametrize("length", [1, 5, 28, 40])
def test_any_block_of_items_gives_the_lists_of_the_definition(
    monkeypatch: pytest.MonkeyPatch, width: int, length: int, device: torch.device
) -> None:
    monkeypatch.setattr(BLOCKS[device.type], (0, width, width))
    draw = torch.Generator().manual_seed(width)
    user = torch.randint(-2, 3, (9, 3), generator=draw).float()
    table = torch.randint(-2, 3, (31, 3), generator=draw).float()
    history = torch.randint(1, 31, (9, 6), generator=draw)
    rows, seen = torch.arange(9).repeat_interleave(6).to(device), history.flatten().to(device)
    found = top_lists(user.to(device), table.to(device), length, rows, seen)
    for expected, lists in zip(lists_by_definition(user @ table.T, history.tolist(), length), found, strict=True):
        assert torch.equal(expected, lists.cpu())


def test_no_users_have_no_lists(device: torch.device) -> None:
    user, table = torch.ones(0, 2, device=device), torch.ones(9, 2, device=device)
    masked, unmasked = top_lists(user, table, 3, nothing(device), nothing(device))
    assert masked.shape == unmasked.shape == (0, 3)


def test_a_list_without_seen_items_moves_up(device: torch.device) -> None:
    lists = torch.tensor([[4, 2, 9, 1], [4, 2, 9, 1], [5, 0, 0, 0]], device=device)
    rows, items = torch.tensor([0, 0, 1, 2], device=device), torch.tensor([2, 7, 4, 5], device=device)
    left = without_seen(lists, rows, items)
    assert left.tolist() == [[4, 9, 1, 0], [2, 9, 1, 0], [0, 0, 0, 0]]
    assert without_seen(lists, nothing(device), nothing(device)).tolist() == lists.tolist()
    targets = torch.tensor([9, 4, 5], device=device)
    assert ranks_in_lists(lists, targets).tolist() == [3, 1, 1]
    assert ranks_in_lists(left, targets).tolist() == [2, float("inf"), float("inf")]
