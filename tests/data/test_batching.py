"""Random batches visit every instance once per pass and continue from a saved state."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from tslrec.data.batching import RandomBatches


def test_a_caller_that_reads_exactly_len_batches_gets_every_instance_in_every_epoch() -> None:
    batches = RandomBatches(23, batch_size=5, seed=0)
    for epoch in range(3):
        assert batches.epoch == epoch
        drawn = np.concatenate(list(islice(batches, len(batches))))
        assert sorted(drawn) == list(range(23))


def test_each_epoch_has_another_order() -> None:
    batches = RandomBatches(23, batch_size=23, seed=0)
    first, second = (next(iter(batches)) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("steps", [1, 3, 5, 12])
def test_with_steps_per_epoch_the_next_epoch_continues_where_the_last_one_stopped(steps: int) -> None:
    whole_passes = RandomBatches(23, batch_size=5, seed=0)
    expected = [batch.tolist() for _ in range(6) for batch in whole_passes]
    batches = RandomBatches(23, batch_size=5, seed=0, steps_per_epoch=steps)
    assert len(batches) == steps
    found = []
    for _ in range(30 // steps):
        epoch = [batch.tolist() for batch in batches]
        assert len(epoch) == steps
        found.extend(epoch)
    assert found == expected[: len(found)]


@pytest.mark.parametrize("steps", [None, 3, 12])
@pytest.mark.parametrize("read", [0, 2, 5, 7])
def test_a_restored_state_gives_the_same_next_batches(read: int, steps: int | None) -> None:
    def drawn(batches: RandomBatches, count: int) -> list[list[int]]:
        found: list[list[int]] = []
        while len(found) < count:
            found.extend(batch.tolist() for batch in islice(batches, count - len(found)))
        return found

    whole = drawn(RandomBatches(23, batch_size=5, seed=3, steps_per_epoch=steps), read + 6)
    stopped = RandomBatches(23, batch_size=5, seed=3, steps_per_epoch=steps)
    before = drawn(stopped, read)
    resumed = RandomBatches(23, batch_size=5, seed=3, steps_per_epoch=steps)
    resumed.load_state_dict(stopped.state_dict())
    assert before + drawn(resumed, 6) == whole


def test_the_state_of_another_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed 1"):
        RandomBatches(23, batch_size=5, seed=0).load_state_dict(RandomBatches(23, batch_size=5, seed=1).state_dict())
