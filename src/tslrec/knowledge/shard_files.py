"""The files of a result of rows in the making, and how many of its shards are done; free of heavy imports.

`tslrec.knowledge.shards` and `tslrec.stages.soft_targets` write them, and `tslrec status` counts them.
"""

from __future__ import annotations

import json
from pathlib import Path

from tslrec.system.errors import UserError
from tslrec.system.shares import SHARD

PLAN = "plan.json"
"""What the rows are made from and how they are cut into shards."""

ROWS = "knowledge.safetensors"
"""The arrays of one shard, in its folder."""


def count_shards(folder: Path) -> tuple[int, int] | None:
    """How many shards of a result in the making are finished, and how many it will have.

    Args:
        folder: where the shards are written.

    Returns:
        None where none was begun.

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
