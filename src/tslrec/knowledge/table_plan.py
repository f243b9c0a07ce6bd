"""What an unfinished table with one row per item is made from, and the table of its finished shards.

Shapes: I items (row 0 of the table is padding), H size of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tslrec.knowledge.shard_files import ROWS
from tslrec.knowledge.shards import Plan, Shards
from tslrec.knowledge.store import KNOWLEDGE
from tslrec.system.errors import UserError
from tslrec.system.row_tables import FileTable


@dataclass(frozen=True, kw_only=True)
class TablePlan(Plan):
    """The plan of a table whose rows depend on nothing but their items.

    Attributes:
        origin: what the rows are made from, in the types that JSON keeps.
    """

    origin: Mapping[str, Any]
    kind = "table"

    def made_from(self) -> dict[str, Any]:
        return {"origin": dict(self.origin)}

    @staticmethod
    def read_made_from(value: Mapping[str, Any]) -> dict[str, Any]:
        return {"origin": dict(value["origin"])}

    def require_match(self, wanted: TablePlan, path: Path) -> None:
        if self.origin != wanted.origin or self.num_rows != wanted.num_rows:
            raise UserError(
                f"{path}: the shards beside it are made from something else than this run's; delete the folder"
            )


def finished_table(shards: Shards[TablePlan]) -> Tensor:
    """The table `[I + 1, H]`; padding is zero. All shards must be finished."""
    rows = [FileTable(shards.path(number) / ROWS, KNOWLEDGE)[:] for number in range(shards.num_shards)]
    return F.pad(torch.cat(rows), (0, 0, 1, 0))
