"""The explicit rows of items that nothing was trained of."""

from __future__ import annotations

import torch

from tslrec.stages.cold_items import damped_rows, mean_row

TABLE_ID = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [30.0, 40.0], [0.3, 0.4], [0.0, 0.0]])
COLD_I = torch.tensor([False, False, False, True, True, True])


def test_the_mean_row_is_that_of_the_trained_items() -> None:
    assert mean_row(TABLE_ID, COLD_I).tolist() == [1.5, 2.5]


def test_rows_are_no_longer_than_the_mean_trained_row_and_keep_their_direction() -> None:
    damped = damped_rows(TABLE_ID, COLD_I)
    torch.testing.assert_close(damped, torch.tensor([[1.8, 2.4], [0.3, 0.4], [0.0, 0.0]]))
