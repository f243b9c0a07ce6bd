"""The histories that both sides of a comparison with a rival's public code train on."""

from __future__ import annotations

import argparse

from growth import market
from tslrec.data.interactions import Interactions
from tslrec.system.errors import UserError

USERS, ITEMS = 22_363, 12_101
"""Of Beauty, the size of the generated data."""


def interactions(arguments: argparse.Namespace) -> Interactions:
    """The data set, from its raw file or generated with Beauty's size.

    Raises:
        UserError: if there is no such file.
    """
    if arguments.file is None:
        return market(1, users=300, items=200) if arguments.quick else market(1, users=USERS, items=ITEMS)
    if not arguments.file.is_file():
        raise UserError(f"{arguments.file}: there is no such file; give the raw file of {arguments.data}")
    from side_tslrec import load_file

    return load_file(arguments.data, arguments.file)
