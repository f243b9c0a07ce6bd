"""Exact full ranking equals the reference, and a model that knows nothing does not look perfect."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import CHECKOUT
from tslrec.errors import UserError
from tslrec.metrics import NDCG, HitRate, ranks_from_scores, target_ranks

GOLDEN = CHECKOUT.parent / "shared" / "golden" / "metrics.npz"
NOTHING = torch.zeros(0, dtype=torch.int64)


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the reference file is not beside the checkout")
def test_equals_the_reference() -> None:
    with np.load(GOLDEN) as file:
        golden = {key: torch.from_numpy(file[key]) for key in file.files}
    rows, columns = torch.nonzero(golden["history"], as_tuple=True)
    masked, unmasked = ranks_from_scores(golden["scores"], golden["target"], rows, golden["history"][rows, columns])
    for protocol, ranks in (("hist", masked), ("nohist", unmasked)):
        reachable = torch.isfinite(ranks)
        assert torch.equal(ranks[reachable] - 1, golden[f"{protocol}/rank0"][reachable].double())
        for k in (1, 5, 10):
            for name, metric in (("hit", HitRate(k)), ("ndcg", NDCG(k))):
                metric.update(ranks)
                torch.testing.assert_close(metric.compute(), golden[f"{protocol}/{name}@{k}"], atol=1e-12, rtol=0)


def test_equal_scores_share_the_middle_rank() -> None:
    masked, unmasked = ranks_from_scores(torch.ones(1, 102), torch.tensor([5]), torch.tensor([0]), torch.tensor([7]))
    assert unmasked.item() == 51
    assert masked.item() == 50.5


def test_a_seen_item_counts_once_and_a_seen_target_is_unreachable() -> None:
    scores = torch.tensor([[0.0, 3.0, 2.0, 1.0]])
    rows = torch.tensor([0, 0])
    assert ranks_from_scores(scores, torch.tensor([3]), rows, torch.tensor([1, 1]))[0].item() == 2
    assert ranks_from_scores(scores, torch.tensor([1]), rows, torch.tensor([1, 2]))[0].item() == float("inf")


def test_chunks_give_the_same_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    user, table = torch.randn(9, 4, generator=draw), torch.randn(31, 4, generator=draw)
    targets = torch.randint(1, 31, (9,), generator=draw)
    rows, items = torch.arange(9).repeat_interleave(3), torch.randint(1, 31, (27,), generator=draw)
    whole = target_ranks(user, table, targets, rows, items)
    monkeypatch.setattr("tslrec.metrics.CHUNK_BYTES", 31 * 4 * 2)
    for expected, found in zip(whole, target_ranks(user, table, targets, rows, items), strict=True):
        assert torch.equal(expected, found)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="not finite"):
        ranks_from_scores(torch.tensor([[0.0, float("nan"), 1.0]]), torch.tensor([2]), NOTHING, NOTHING)


def test_a_metric_of_no_users_is_refused() -> None:
    with pytest.raises(ValueError, match="no users"):
        HitRate(5).compute()
