"""What EASE needs of the data set and of the machine, checked before anything is computed."""

from __future__ import annotations

from tslrec.config import Config
from tslrec.system.errors import UserError
from tslrec.system.machine_memory import in_gib, memory_bytes

MATRICES = 3
"""Float64 matrices of items × items that the solution needs memory for."""


def check_ease(config: Config, num_items: int) -> None:
    """Checks that the matrices of the closed form fit into memory.

    Args:
        config: of the run.
        num_items: items of the data set.

    Raises:
        UserError: naming what to change.
    """
    name, there = config.data.name, memory_bytes()
    needed = MATRICES * 8 * num_items**2
    if there is not None and needed > there:
        raise UserError(
            f"data={name}: EASE needs {in_gib(needed)} for weights between {num_items:,} items, this machine has "
            f"{in_gib(there)}; leave rare items out with data.min_item_interactions"
        )
