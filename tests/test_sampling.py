"""Random batches visit every instance once an epoch, whoever counts them, and go on from a saved state."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from tslrec.sampling import RandomBatches


def test_a_reader_that_counts_the_batches_gets_every_instance_in_every_epoch() -> None:
    batches = RandomBatches(23, batch_size=5, seed=0)
    for epoch in range(3):
        assert batches.epoch == epoch
        drawn = np.concatenate(list(islice(batches, len(batches))))
        assert sorted(drawn) == list(range(23))


def test_epochs_differ_in_their_order() -> None:
    batches = RandomBatches(23, batch_size=23, seed=0)
    first, second = (next(iter(batches)) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("read", [0, 2, 5, 7])
def test_a_saved_state_goes_on_where_it_was(read: int) -> None:
    def drawn(batches: RandomBatches, count: int) -> list[list[int]]:
        found: list[list[int]] = []
        while len(found) < count:
            found.extend(batch.tolist() for batch in islice(batches, count - len(found)))
        return found

    whole = drawn(RandomBatches(23, batch_size=5, seed=3), read + 6)
    stopped = RandomBatches(23, batch_size=5, seed=3)
    before = drawn(stopped, read)
    resumed = RandomBatches(23, batch_size=5, seed=3)
    resumed.load_state_dict(stopped.state_dict())
    assert before + drawn(resumed, 6) == whole


def test_the_state_of_another_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed 1"):
        RandomBatches(23, batch_size=5, seed=0).load_state_dict(RandomBatches(23, batch_size=5, seed=1).state_dict())
