"""Training targets that know their place in the flat array of interactions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from support.interactions import make_interactions
from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.interactions import Interactions

WAYS: dict[str, dict[str, Any]] = {
    "prefixes": {"all_positions": False},
    "prefixes of one length": {"all_positions": False, "fixed_window": True},
    "windows": {"all_positions": True},
    "packed windows": {"all_positions": True, "packed": True},
}


def market() -> Interactions:
    """Long histories too, whose windows overlap; and users without a target."""
    draw = np.random.default_rng(0)
    lengths = [30, 3, 4, 1, 7, 25, 9, 2, 11, 12, 60, 5, 3]
    return make_interactions([draw.integers(1, 21, length).tolist() for length in lengths], num_items=20)


def data_of(interactions: Interactions, **settings: Any) -> SequenceDataModule:
    return SequenceDataModule(interactions, max_len=9, batch_size=24, eval_batch_size=8, seed=0, **settings)


@pytest.mark.parametrize("way", WAYS)
def test_each_training_target_occurs_once_with_its_own_place(way: str) -> None:
    interactions = market()
    found = []
    for batch in data_of(interactions, with_places=True, **WAYS[way]).train_dataloader():
        for part in batch.parts:
            assert part.places is not None
            assert part.places.shape == part.targets.shape
            counted = part.targets > 0
            assert not part.places[~counted].any()
            places = part.places[counted].numpy()
            assert interactions.items[places].tolist() == part.targets[counted].tolist()
            found += places.tolist()
    wanted = interactions.is_training_N
    wanted[interactions.offsets[:-1]] = False
    assert sorted(found) == np.flatnonzero(wanted).tolist()


@pytest.mark.parametrize("way", WAYS)
def test_places_change_nothing_else_and_are_not_there_where_nobody_asks(way: str) -> None:
    plain, placed = (
        list(data_of(market(), with_places=with_places, **WAYS[way]).train_dataloader())
        for with_places in (False, True)
    )
    for one, other in zip(plain, placed, strict=True):
        assert one.num_targets == other.num_targets
        for before, after in zip(one.parts, other.parts, strict=True):
            assert before.places is None
            assert torch.equal(before.items_BL, after.items_BL)
            assert torch.equal(before.targets, after.targets)


def test_a_process_without_a_target_of_its_own_has_none_with_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tslrec.data.batching.rank_and_world_size", lambda: (1, 2))
    for way in WAYS.values():
        data = data_of(market(), with_places=True, **way)
        (part,) = data.batches.collate(np.array([3])).parts
        assert part.places is not None
        assert not part.places.any()
        assert not part.targets.any()


@pytest.mark.parametrize("count", [1, 3, 50])
def test_parts_of_a_cut_batch_keep_their_places(count: int) -> None:
    data = data_of(market(), with_places=True, all_positions=False, fixed_window=True)
    part = next(iter(data.train_dataloader())).parts[0]
    pieces = part.cut(count)
    assert len(pieces) == count
    assert part.places is not None
    assert torch.equal(torch.cat([piece.places for piece in pieces if piece.places is not None]), part.places)
    assert all(piece.places is None for piece in part._replace(places=None).cut(count))
