"""Training rows with masked items: which are masked, which count, and that a resumed training masks the same."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.interactions import make_interactions
from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.interactions import Interactions
from tslrec.data.masking import Masking
from tslrec.data.sequence_batch import TrainingBatch
from tslrec.system.errors import UserError

MAX_LEN = 6
LAST, RANDOM = Masking(1.0, 0.5), Masking(0.0, 0.5)
Row = tuple[list[int], list[int]]
"""Items as they are shown, 0 for a mask, and targets."""


def market(num_users: int = 30) -> Interactions:
    """Each item occurs once in the data, so that a row tells where it is from."""
    draw = np.random.default_rng(0)
    lengths = 1 + draw.integers(0, 14, num_users)
    ends = np.cumsum(lengths)
    return make_interactions(
        [list(range(end - length + 1, end + 1)) for end, length in zip(ends, lengths, strict=True)]
    )


def data_of(interactions: Interactions, masking: Masking, *, seed: int = 0, **changes: int) -> SequenceDataModule:
    numbers: dict[str, Any] = {"max_len": MAX_LEN, "batch_size": 12, "eval_batch_size": 8, **changes}
    return SequenceDataModule(interactions, all_positions=False, seed=seed, masking=masking, **numbers)


def rows_of(batch: TrainingBatch) -> list[Row]:
    """The rows of a step, in their order in the step."""
    (part,) = batch.parts
    assert part.packing is not None
    found = []
    for sequence in range(int(part.packing.sequences_BL.max()) + 1):
        here = part.packing.sequences_BL == sequence
        assert part.packing.positions_BL[here].tolist() == list(range(int(here.sum())))
        found.append((part.items_BL[here].tolist(), part.targets[here].tolist()))
    assert not part.items_BL[part.packing.sequences_BL < 0].any()
    assert not part.targets[part.packing.sequences_BL < 0].any()
    return found


def steps_of(data: SequenceDataModule, passes: int = 1) -> list[list[Row]]:
    found = []
    for batch in (batch for _ in range(passes) for batch in data.train_dataloader()):
        rows = rows_of(batch)
        assert batch.num_targets == sum(np.count_nonzero(targets) for _, targets in rows) > 0
        found.append(rows)
    return found


def whole(row: Row) -> list[int]:
    """The items of a row of which every masked item counts."""
    items, targets = row
    assert all((item == 0) == (target > 0) for item, target in zip(items, targets, strict=True))
    return [item or target for item, target in zip(items, targets, strict=True)]


@pytest.mark.parametrize("masking", [LAST, RANDOM])
def test_a_pass_holds_every_training_part_with_its_last_item(masking: Masking) -> None:
    interactions = market()
    found = [whole(row) for step in steps_of(data_of(interactions, masking)) for row in step]
    parts = [
        interactions.items[begin : begin + length].tolist()
        for begin, length in zip(interactions.offsets[:-1], interactions.train_lengths, strict=True)
        if length > 1
    ]
    assert {item for row in found for item in row} == {item for part in parts for item in part}
    assert sorted(row for row in found if len(row) < MAX_LEN) == sorted(part for part in parts if len(part) < MAX_LEN)
    for part in parts:
        assert part[-MAX_LEN:] in found
        assert part[:MAX_LEN] in found
    assert all(len(row) <= MAX_LEN for row in found)


def test_the_last_item_alone_is_masked() -> None:
    for step in steps_of(data_of(market(), LAST)):
        for items, targets in step:
            assert items[-1] == 0
            assert not any(targets[:-1])


@pytest.mark.parametrize("ft_ratio", [0.0, 0.3, 1.0])
def test_masks_are_as_frequent_as_they_are_told_to_be(ft_ratio: float) -> None:
    masking = Masking(ft_ratio, 0.4)
    lengths_B = np.full(50, 7)
    steps = [masking.places(lengths_B, np.random.default_rng([1, step]))[0] for step in range(400)]
    of_last = np.array([masked_S.reshape(50, 7)[:, -1].all() for masked_S in steps])
    assert abs(of_last.mean() - ft_ratio) <= 5 * (ft_ratio * (1 - ft_ratio) / 400) ** 0.5
    at_random = [masked_S for masked_S, last in zip(steps, of_last, strict=True) if not last]
    if at_random:
        share = np.mean(at_random)
        assert abs(share - 0.4) < 5 * (0.24 / (350 * len(at_random))) ** 0.5


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 9), min_size=1, max_size=6),
    ft_ratio=st.sampled_from([0.0, 0.5, 1.0]),
    mask_ratio=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    most_counted=st.sampled_from([None, 1, 3]),
    counts_first=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_step_has_a_target_whatever_is_drawn(
    lengths: list[int], ft_ratio: float, mask_ratio: float, most_counted: int | None, counts_first: bool, seed: int
) -> None:
    lengths_B = np.array(lengths)
    masking = Masking(ft_ratio, mask_ratio, most_counted, counts_first)
    masked_S, counted_S = masking.places(lengths_B, np.random.default_rng(seed))
    assert counted_S.any()
    assert not (counted_S & ~masked_S).any()
    for masked, counted in zip(
        *(np.split(each, np.cumsum(lengths)[:-1]) for each in (masked_S, counted_S)), strict=True
    ):
        expected = masked.nonzero()[0].tolist()
        expected = expected if most_counted is None else expected[-most_counted:]
        assert counted.nonzero()[0].tolist() == [place for place in expected if place > 0 or counts_first]


@pytest.mark.parametrize("steps_per_epoch", [None, 3])
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_resumed_training_has_the_masks_of_one_that_was_not_killed(stop: int, steps_per_epoch: int | None) -> None:
    numbers = {} if steps_per_epoch is None else {"steps_per_epoch": steps_per_epoch}
    mixed = Masking(0.5, 0.5)
    expected = steps_of(data_of(market(), mixed, **numbers), passes=6)
    loader = data_of(market(), mixed, **numbers).train_dataloader()
    given: list[TrainingBatch] = []
    while len(given) < stop:
        given.extend(islice(loader, stop - len(given)))
    resumed = data_of(market(), mixed, **numbers)
    resumed.train_dataloader().load_state_dict(loader.state_dict())
    found = [rows_of(batch) for batch in given] + steps_of(resumed, passes=4)
    assert found == expected[: len(found)]
    assert len(found) > len(loader)


def test_each_pass_and_each_seed_mask_anew() -> None:
    def masked(seed: int, passes: int) -> list[Row]:
        steps = steps_of(data_of(market(), RANDOM, seed=seed), passes)
        return sorted(row for step in steps[-len(steps) // passes :] for row in step)

    first, second, other = masked(0, 1), masked(0, 2), masked(1, 1)
    assert sorted(map(whole, first)) == sorted(map(whole, second)) == sorted(map(whole, other))
    assert first != second
    assert first != other


def test_ranks_share_the_rows_of_a_step_and_its_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    interactions, mixed = market(), Masking(0.5, 0.5)
    together = list(data_of(interactions, mixed).train_dataloader())
    apart = []
    for rank in range(3):
        monkeypatch.setattr("tslrec.data.batching.rank_and_world_size", lambda rank=rank: (rank, 3))
        apart.append(list(data_of(interactions, mixed).train_dataloader()))
    for step, *shares in zip(together, *apart, strict=True):
        rows = [row for share in shares for row in rows_of(share)]
        # A rank without a row of its own runs another's, which does not count.
        assert sorted(row for row in rows if any(row[1])) == sorted(row for row in rows_of(step) if any(row[1]))
        assert {share.num_targets for share in shares} == {step.num_targets}


def test_about_as_many_targets_as_asked_for_are_in_a_step() -> None:
    draw = np.random.default_rng(0)
    interactions = make_interactions([draw.integers(1, 50, length).tolist() for length in draw.integers(4, 20, 4000)])
    for masking in (LAST, RANDOM, Masking(0.5, 0.2)):
        data = data_of(interactions, masking, batch_size=200, max_len=50)
        targets = [batch.num_targets for batch in list(data.train_dataloader())[:-1]]
        # Of a few steps, some of which mask one item per row and some a share.
        assert 120 < np.mean(targets) < 300


def test_without_a_row_of_two_items_there_is_nothing_to_train_on() -> None:
    with pytest.raises(UserError, match="no user has two training items"):
        data_of(make_interactions([[1, 2, 3], [2]]), RANDOM)


def test_no_global_random_state_is_drawn_from() -> None:
    before, numpys = torch.get_rng_state(), repr(np.random.get_state())
    steps_of(data_of(market(), Masking(0.5, 0.5)))
    assert torch.equal(torch.get_rng_state(), before)
    assert repr(np.random.get_state()) == numpys
