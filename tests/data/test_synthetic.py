"""Generated data: numbers of which none can be made are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from tslrec.data.formats.synthetic import generate
from tslrec.system.errors import UserError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_categories": 0}, r"data\.reader\.num_categories=0: must be from 1 to 10000000"),
        ({"num_categories": -3}, r"data\.reader\.num_categories=-3: must be from 1 to 10000000"),
        ({"num_users": 0}, r"data\.reader\.num_users=0: must be from 1 to 10000000"),
        ({"num_users": 10**12}, r"data\.reader\.num_users=1000000000000: must be from 1 to 10000000"),
        ({"num_items": 10**30}, r"data\.reader\.num_items=1e30: must be from 1 to 10000000"),
        ({"average_length": 0}, r"data\.reader\.average_length=0: must be above 0"),
        ({"average_length": -2.5}, r"data\.reader\.average_length=-2\.5: must be above 0"),
        ({"average_length": float("nan")}, r"data\.reader\.average_length=nan: must be above 0"),
        ({"seed": -1}, r"data\.reader\.seed=-1: must be 0 or more"),
        (
            {"num_users": 10**7, "average_length": 20},
            r"data\.reader: num_users=10000000 times average_length=20 is above 100000000, .*",
        ),
        ({"num_items": 15}, r"data\.reader: 15 items and 800 users are too few for 8 categories .*"),
    ],
)
def test_numbers_of_which_no_data_can_be_made_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        generate(**settings)


def test_the_smallest_data_are_made() -> None:
    assert generate(num_users=1, num_items=2, num_categories=1, average_length=1).rows["item"].n_unique() == 2
