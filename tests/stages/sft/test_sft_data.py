"""Which users the preference SFT shows, in which step, and what of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from support.interactions import make_interactions
from support.sft_market import CLUSTERS_I, NUM_CLUSTERS, market
from tslrec.data.batching import split_users
from tslrec.data.interactions import Interactions
from tslrec.knowledge.preferences import user_preferences
from tslrec.llm.packing import Packer
from tslrec.stages.sft.data import PreferenceBatch, PreferenceDataModule, training_histories
from tslrec.system.errors import UserError


def data_module(
    interactions: Interactions, batch_size: int = 10, max_len: int = 50, held_back: float = 0.0
) -> PreferenceDataModule:
    targets_UK = user_preferences(interactions, CLUSTERS_I, NUM_CLUSTERS)
    packer = Packer(num_response=1)
    return PreferenceDataModule(
        interactions,
        targets_UK,
        packer,
        max_len=max_len,
        batch_size=batch_size,
        seed=0,
        held_back=held_back,
        eval_batch_size=4,
    )


def test_held_back_users_are_validated_on_and_never_trained_on() -> None:
    # Users who are known by the only item that is shown of them.
    interactions = make_interactions([[1 + user, 1, 2] for user in range(20)])
    data = data_module(interactions, held_back=0.2)

    def shown(batches: Iterable[PreferenceBatch]) -> list[int]:
        tokens = torch.cat([batch.examples.tokens_RT.flatten() for batch in batches])
        return sorted(tokens[tokens > 0].tolist())

    validated = shown(data.val_dataloader())
    assert len(validated) == 4
    for _ in range(2):
        assert shown(data.train_dataloader()) == sorted(set(range(1, 21)) - set(validated))
    assert set(shown([PreferenceBatch(data.sample(20), torch.empty(0), True, 0)])).isdisjoint(validated)


@pytest.mark.parametrize(("users", "held_back", "count"), [(100, 0.05, 5), (10, 0.01, 1), (2, 0.5, 1), (10, 0.0, 0)])
def test_users_are_held_back_by_share_and_seed(users: int, held_back: float, count: int) -> None:
    trained, chosen = split_users(users, held_back, 0)
    assert len(chosen) == count
    assert sorted([*trained, *chosen]) == list(range(users))
    assert np.array_equal(split_users(users, held_back, 0)[1], chosen)
    others = {tuple(split_users(users, held_back, seed)[1]) for seed in range(20)}
    assert len(others) > 1 or count == 0


def test_a_single_user_cannot_be_held_back() -> None:
    with pytest.raises(UserError, match=r"sft.held_back: .* set it to 0"):
        split_users(1, 0.1, 0)


def test_validation_and_test_items_are_never_shown() -> None:
    interactions = make_interactions([[1, 2, 3, 4, 5], [6, 7], [8, 9, 10]])
    shown = [items.tolist() for items in training_histories(interactions, 50)]
    assert shown == [[1, 2, 3], [6, 7], [8]]


def test_a_long_history_is_cut_to_its_last_items() -> None:
    interactions = make_interactions([[1, 2, 3, 4, 5, 6]])
    assert [items.tolist() for items in training_histories(interactions, 2)] == [[3, 4]]


def test_an_epoch_shows_each_user_once_with_its_own_target() -> None:
    interactions = market()
    loader = data_module(interactions).train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader)
    shown: list[tuple[list[int], list[float]]] = []
    for batch in batches:
        for user in range(len(batch.targets_BK)):
            tokens = batch.examples.tokens_RT[batch.examples.examples_RT == user]
            shown.append((tokens[tokens > 0].tolist(), batch.targets_BK[user].tolist()))
    targets_UK = user_preferences(interactions, CLUSTERS_I, NUM_CLUSTERS).tolist()
    expected = [
        (items.tolist(), target) for items, target in zip(training_histories(interactions, 50), targets_UK, strict=True)
    ]
    assert sorted(shown) == sorted(expected)


def test_processes_share_each_step_without_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(rank: int, world_size: int) -> list[PreferenceBatch]:
        monkeypatch.setattr("tslrec.data.batching.rank_and_world_size", lambda: (rank, world_size))
        return list(data_module(market(21), batch_size=10).train_dataloader())

    whole = batches(0, 1)
    shares = [batches(rank, 2) for rank in range(2)]
    for each in (whole, *shares):
        assert [batch.num_users for batch in each] == [10, 10, 1]
    first_step = torch.cat([share[0].targets_BK for share in shares])
    assert sorted(first_step.tolist()) == sorted(whole[0].targets_BK.tolist())
    # A last user alone is run by both, and counted by one.
    assert [share[2].counted for share in shares] == [True, False]
    assert torch.equal(shares[0][2].targets_BK, shares[1][2].targets_BK)
