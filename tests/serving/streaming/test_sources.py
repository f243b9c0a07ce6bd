"""The users of a data set as a source of histories."""

from __future__ import annotations

import numpy as np
import pytest

from support.interactions import make_interactions
from support.recommenders import catalogue
from tslrec.serving.run_histories import histories_of
from tslrec.serving.streaming.sources import DatasetUsers

INTERACTIONS = make_interactions([[1, 2, 3], [4], [5, 1], [2, 2, 6, 7]])


@pytest.mark.parametrize("leave_out", [0, 1, 2])
def test_ranges_together_are_all_users_with_their_rows(leave_out: int) -> None:
    """A method that knows its users by number, such as P5, finds them by their rows."""
    rows = np.array([3, 0, 1])
    source = DatasetUsers(INTERACTIONS, rows, leave_out=leave_out)
    whole = histories_of(INTERACTIONS, rows, leave_out=leave_out)
    parts = [source.read(part, catalogue(7), "refuse") for part in (slice(0, 2), slice(2, 3))]
    for name in ("items", "rows"):
        assert np.concatenate([getattr(each, name) for each in parts]).tolist() == getattr(whole, name).tolist()
    assert [user for each in parts for user in each.users] == ["u3", "u0", "u1"]
    assert np.concatenate([each.lengths for each in parts]).tolist() == [
        max(0, length - leave_out) for length in (4, 3, 1)
    ]
