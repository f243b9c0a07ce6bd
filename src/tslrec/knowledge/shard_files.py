"""The files of a knowledge store in the making, and how many shards are done; free of heavy imports.

`tslrec.knowledge.shards` writes them, and `tslrec status` counts them.
"""

from __future__ import annotations

import json
from pathlib import Path

from tslrec.system.errors import UserError
from tslrec.system.shares import SHARD

PLAN = "plan.json"
"""What the store is made from and how its items are cut into shards."""

ROWS = "knowledge.safetensors"
"""The arrays of one shard, in its folder."""


def count_shards(folder: Path) -> tuple[int, int] | None:
    """How many shards of a store in the making are finished, and how many it will have.

    Args:
        folder: where the shards are written.

    Returns:
        None where no store was begun.

    Raises:
        UserError: if the plan cannot be read.
    """
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        planned = -(-plan["num_rows"] // plan["shard_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{PLAN} cannot be read ({error})") from error
    return sum(1 for _ in folder.glob(f"{SHARD}*")), planned
